"""What a round has to beat: what serves, which need not be the champion."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend.learning.folders import locks_folder, loop_name
from backend.learning.opponent import Opponent, base_of, find_opponent, still_serves
from backend.learning.round_run import RoundRun, Work
from backend.learning.round_state import RoundState
from backend.learning.trainer import Ending
from segzero_ml.adapter_files import TENSORS_FILE
from segzero_ml.lineage import Lineage
from segzero_ml.presets import get_preset
from segzero_ml.registry import Registry
from segzero_ml.weights import locate
from tests.backend.corrected import PROJECT, FileServer
from tests.backend.train_world import Project, project, use
from tests.segzero_ml.adapter_samples import INFO, write_adapter
from training_hooks.fence import acquire

BASE = INFO.base
OTHER = "b" * 64


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def publish(registry: Registry, seed: int, base: str = BASE) -> str:
    """Publish an adapter and have it serve."""
    adapter = write_adapter(registry.folder.with_name(f"adapter{seed}"), seed=seed)
    version = registry.publish(adapter, replace(INFO, base=base, round=f"r{seed}"))
    return registry.promote(version.id).id


def damage(registry: Registry, version_id: str) -> None:
    path = registry.version(version_id).folder / TENSORS_FILE
    path.write_bytes(path.read_bytes()[:-1])


def opponent(registry: Registry, base: str = BASE) -> Opponent:
    return find_opponent(registry, registry.lineage(), base)


def test_without_versions_the_base_is_to_be_beaten(registry: Registry) -> None:
    assert opponent(registry) == Opponent(BASE)


def test_a_sound_champion_is_to_be_beaten_and_nothing_is_remarked(registry: Registry) -> None:
    publish(registry, 1)
    second = publish(registry, 2)
    assert opponent(registry) == Opponent(BASE, second)


def test_a_champion_over_other_weights_does_not_serve_and_the_base_is_to_be_beaten(
    registry: Registry,
) -> None:
    champion = publish(registry, 1, OTHER)
    found = opponent(registry)
    assert found.version is None
    assert found.remark.startswith("It was compared with the base, as the champion does not serve:")
    assert f"{champion} was trained over other weights" in found.remark


def test_a_damaged_champion_does_not_serve_and_the_last_sound_one_before_it_does(
    registry: Registry,
) -> None:
    first, second, third = publish(registry, 1), publish(registry, 2, OTHER), publish(registry, 3)
    damage(registry, third)
    found = opponent(registry)
    assert found.version == first
    assert f"compared with {first}" in found.remark
    assert second in found.remark
    assert "is not the file that was published" in found.remark


def test_a_champion_that_is_gone_does_not_serve(registry: Registry) -> None:
    champion = publish(registry, 1)
    shutil.rmtree(registry.version(champion).folder)
    assert opponent(registry).version is None
    assert champion in opponent(registry).remark


def test_what_served_before_the_base_did_is_not_gone_back_to(registry: Registry) -> None:
    sound, broken = publish(registry, 1), publish(registry, 2, OTHER)
    assert find_opponent(registry, Lineage(broken, (None, sound)), BASE).version is None


def test_of_many_versions_three_are_tried_as_serving_does(registry: Registry) -> None:
    sound = publish(registry, 1)
    for seed in (2, 3, 4):
        publish(registry, seed, OTHER)
    assert opponent(registry).version is None
    registry.rollback()
    assert opponent(registry).version == sound


def test_what_was_found_before_serves_until_it_is_damaged(registry: Registry) -> None:
    found = Opponent(BASE, publish(registry, 1))
    assert still_serves(registry, found)
    assert not still_serves(registry, replace(found, base=OTHER))
    damage(registry, str(found.version))
    assert not still_serves(registry, found)
    assert still_serves(registry, Opponent(BASE))


def test_the_weights_of_a_preset_are_told_as_loading_them_would() -> None:
    assert base_of("tiny") == locate(get_preset("tiny").reasoner).version


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with (
        project(tmp_path_factory.mktemp("data")) as here,
        FileServer.running() as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        use(here, server, patch)
        yield here


def go(here: Project, patch: pytest.MonkeyPatch, state: RoundState) -> tuple[RoundState, list[str]]:
    """Run a round whose process only says that nothing better came of it; its command."""
    commands: list[list[str]] = []

    def run_process(command: Sequence[str], folder: Path, *_: object) -> Ending:
        commands.append(list(command))
        result = {"verdict": {"promote": False, "reasons": ["It is not better."]}, "steps": 1}
        (folder / "result.json").write_text(json.dumps(result))
        return Ending(0, "")

    patch.setattr("backend.learning.round_run.run_process", run_process)
    name, settings = loop_name(here.settings, PROJECT.project), here.settings
    with acquire(name, locks_folder(settings), here.client) as fence:
        going = RoundRun(
            Work(settings, PROJECT, name, here.client, here.registry, fence, None), state
        )
        ended = going.go()
    (command,) = commands
    return ended, command


def fresh() -> RoundState:
    return RoundState("job", datetime.now(UTC).isoformat())


def test_a_round_is_judged_against_what_serves_and_says_so_where_that_is_not_the_champion(
    served: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_of("tiny")
    plain, command = go(served, monkeypatch, fresh())
    assert (plain.champion, plain.against, plain.base, plain.remark) == (None, None, base, "")
    assert not {"--champion", "--note"} & set(command)
    assert plain.text == "The champion stays: It is not better."

    before = publish(served.registry, 1, base)
    champion = publish(served.registry, 2, OTHER)
    ended, command = go(served, monkeypatch, fresh())
    assert (ended.champion, ended.against) == (champion, before)
    folder = served.registry.version(before).folder
    assert command[command.index("--champion") + 1] == str(folder)
    assert command[command.index("--note") + 1] == ended.remark
    assert ended.text == f"The champion stays: It is not better. {ended.remark}"
    # Another opponent is another round: what was found against the base does not count.
    assert ended.folder != plain.folder

    # A later try goes on against the same one, whatever was put in service meanwhile.
    (Path(ended.folder) / "result.json").unlink()
    publish(served.registry, 3, base)
    again, _ = go(served, monkeypatch, replace(ended, phase=fresh().phase, text=""))
    assert (again.against, again.champion, again.folder) == (before, champion, ended.folder)


def test_a_round_over_new_weights_begins_anew_and_one_before_does_not_count(
    served: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = replace(fresh(), base=OTHER, against=None, champion=None)
    ended, _ = go(served, monkeypatch, begun)
    assert ended.base == base_of("tiny")
    assert ended.against == served.registry.lineage().champion


def test_who_looks_for_the_opponent_does_not_load_torch() -> None:
    code = (
        "import sys\n"
        "from backend.learning.opponent import base_of\n"
        "base_of('tiny')\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"

"""The registry under real faults: SIGKILL at every line that runs, and a disk that is full."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segzero_ml.registry import Registry
from tests.segzero_ml.adapter_samples import INFO, write_adapter

ROOT = Path(__file__).parents[2]

# Kills itself before the n-th line of the registry's modules, for every n there is. Each life
# is a process of its own, forked from one that is busy with nothing else.
KILL = """
import json, os, shutil, signal, sys
from pathlib import Path
from segzero_ml.registry import Registry
from tests.segzero_ml.adapter_samples import INFO

work, doing = Path(sys.argv[1]), sys.argv[2]
MODULES = ("registry.py", "durable.py", "versions.py", "lineage.py")
ACTIONS = {
    "publish": lambda registry: registry.publish(work / "adapter", INFO),
    "promote": lambda registry: registry.promote(sys.argv[3]),
    "rollback": lambda registry: registry.rollback(),
}

def dying(line):
    left = [line]
    def trace(frame, event, _):
        if not frame.f_code.co_filename.endswith(MODULES):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    return trace

def live(line):
    folder = work / "lives" / str(line)
    shutil.copytree(work / "registry", folder)
    child = os.fork()
    if child == 0:
        sys.settrace(dying(line))
        ACTIONS[doing](Registry(folder))
        sys.settrace(None)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

line = 0
while (code := live(line)) == -signal.SIGKILL:
    line += 1
print(json.dumps({"lives": line + 1, "last": code}))
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A registry with two versions of which the first serves, and a third adapter."""
    registry = Registry(tmp_path / "registry")
    first, _ = (
        registry.publish(write_adapter(tmp_path / f"old{seed}", seed=seed), INFO) for seed in (1, 2)
    )
    registry.promote(first.id)
    write_adapter(tmp_path / "adapter", seed=3)
    return tmp_path


def kill_at_every_line(work: Path, *arguments: str) -> list[Registry]:
    """What each life left behind, in the order of their deaths; the last one lived."""
    said = subprocess.run(
        [sys.executable, "-c", KILL, str(work), *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout
    report = json.loads(said)
    assert report["last"] == 0
    assert report["lives"] > 20  # else the lines were not those of the registry
    return [Registry(work / "lives" / str(line)) for line in range(report["lives"])]


def champion_of(registry: Registry) -> str:
    champion = registry.champion()
    assert champion is not None
    registry.verify(champion)
    return champion.id


@pytest.mark.slow
def test_sigkill_while_publishing_leaves_the_version_whole_or_not_there(work: Path) -> None:
    before = [version.id for version in Registry(work / "registry").versions()]
    counts = []
    for registry in kill_at_every_line(work, "publish"):
        versions = registry.versions()
        assert registry.damaged() == ()
        for version in versions:
            registry.verify(version)
        assert [version.id for version in versions][-2:] == before
        assert champion_of(registry) == before[-1]
        counts.append(len(versions))
        # And the next one finds nothing in its way: no lock, no draft, no second number.
        again = registry.publish(work / "adapter", INFO)
        assert again.number == 3
        assert {path.name for path in (registry.folder / "versions").iterdir()} == {
            *before,
            again.id,
        }
    assert counts == sorted(counts)
    assert set(counts) == {2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("doing", ["promote", "rollback"])
def test_sigkill_while_the_champion_changes_leaves_the_old_or_the_new_one(
    work: Path, doing: str
) -> None:
    registry = Registry(work / "registry")
    new, old = (version.id for version in registry.versions())
    arguments = [doing, new]
    if doing == "rollback":
        registry.promote(new)
        old, new = new, old
    served = []
    for life in kill_at_every_line(work, *arguments):
        served.append(champion_of(life))
        life.promote(new)
        assert champion_of(life) == new
    assert set(served) == {old, new}
    assert served == sorted(served, key=[old, new].index)  # and never back


FILL = """
import resource, sys
from pathlib import Path
from segzero_ml.errors import RegistryError
from segzero_ml.registry import Registry
from tests.segzero_ml.adapter_samples import INFO

work, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
registry = Registry(work / "registry")
try:
    if limit:
        registry.publish(work / "adapter", INFO)
    else:
        registry.promote(sys.argv[3])
except RegistryError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [300, 0], ids=["publish", "promote"])
def test_a_full_disk_leaves_the_champion_and_nothing_half_written(work: Path, limit: int) -> None:
    registry = Registry(work / "registry")
    new, old = (version.id for version in registry.versions())
    said = subprocess.run(
        [sys.executable, "-c", FILL, str(work), str(limit), new],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout
    assert "Check the free space" in said
    assert champion_of(registry) == old
    assert [version.id for version in registry.versions()] == [new, old]
    assert {path.name for path in registry.folder.iterdir()} == {"lock", "versions", "champion"}
    assert {path.name for path in (registry.folder / "versions").iterdir()} == {old, new}

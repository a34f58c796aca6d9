"""What the demo does around its evening scenes: which they are, and what is shown of them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from backend.demo import evening
from backend.demo.correct import compared, run
from backend.demo.follow import describe
from backend.demo.processes import ProcessError
from backend.demo.show import how_to_teach, teaching_commands
from backend.demo.state import Folder, fresh_state, saved_state
from backend.demo.tasks import Outcome
from backend.label_studio_models import Task
from backend.learning.round_state import Phase, RoundState
from backend.settings import ENV_PREFIX, load_settings
from segzero_ml.datasets.scenes import scene_samples


@pytest.mark.parametrize("style", ["plain", "shifted"])
def test_a_task_is_known_by_the_scene_that_it_was_made_of(style: str) -> None:
    sample = scene_samples(3, 9, "shifted" if style == "shifted" else "plain")[2]
    found = evening.sample_of(Task(id=1, data={"scene": sample.sample_id}))
    assert found is not None
    assert found.request == sample.request
    assert found.image().tobytes() == sample.image().tobytes()


@pytest.mark.parametrize("scene", ["", "plain", "plain-x", "dusk-3", "plain-²"])
def test_a_task_from_elsewhere_is_not_known(scene: str) -> None:
    assert evening.sample_of(Task(id=1, data={"scene": scene})) is None


def test_the_demo_starts_segzero_with_settings_that_there_are() -> None:
    given = {
        name.removeprefix(ENV_PREFIX).lower(): value for name, value in evening.SETTINGS.items()
    }
    read = load_settings(**given)
    assert read.train_every_corrections == evening.CORRECTIONS
    assert given.keys() <= type(read).model_fields.keys()
    # The gate asks for 20 held-out images: enough, with room for bad luck.
    assert evening.CORRECTIONS * read.train_held_out_share >= 25


def test_what_was_shown_before_and_after_is_compared_task_by_task() -> None:
    def row(task: int, iou: float | None) -> Outcome:
        return Outcome(task, f"the [red] star {task}", "", None, iou, has_target=True)

    table = compared([row(1, None), row(2, 0.5)], [row(1, 0.8), row(2, 0.6)])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert "the [red] star 1" in text
    assert "no answer" in text
    assert [part in text for part in ("0.80", "0.25", "0.70")] == [True] * 3


def test_what_to_do_with_the_evening_scenes_names_project_and_commands(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a demo")
    folder.root.mkdir()
    state = replace(fresh_state(folder, None), project_id=3, evening_id=4)
    console = Console(width=300, record=True, file=io.StringIO())
    console.print(how_to_teach(state))
    console.print(teaching_commands(state, folder))
    text = console.export_text()
    assert f"{state.label_studio_url}/projects/4" in text
    assert f"{evening.CORRECTIONS} corrections" in text
    assert "make demo-correct ARGS=" in text
    assert "train --project 4 --follow" in text


def test_the_state_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    replace(fresh_state(folder, None), project_id=3, evening_id=4).save(folder)
    saved = json.loads(folder.state.read_text())
    assert saved.pop("evening_id") == 4
    folder.state.write_text(json.dumps(saved))
    state = saved_state(folder)
    assert state is not None
    assert (state.project_id, state.evening_id) == (3, None)


def test_without_a_demo_nothing_is_corrected(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="no demo") as caught:
        run(Folder(tmp_path), None, Console(file=io.StringIO()))
    assert "make demo" in caught.value.remedy


def test_a_round_is_described_by_its_step_and_its_end() -> None:
    state = RoundState("job", "2026-01-01T00:00:00Z", Phase.TRAINING, step=3, steps=8)
    assert describe(state) == "training: step 3 of 8"
    assert describe(replace(state, figures={"reward": 0.5})).endswith("mean reward 0.50")
    assert describe(replace(state, phase=Phase.KEPT, text="It is no better.")) == (
        "kept: It is no better."
    )

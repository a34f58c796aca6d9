"""A whole round with the bundled pair: learnt, compared, judged and reported; a short one."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segzero_ml import masks
from segzero_ml.adapter_files import read_adapter
from segzero_ml.corrections import Correction, LabelledSegment, Verdict
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.errors import FetchError
from segzero_ml.types import ImageSize
from tests.training_hooks.store_samples import correction
from training_hooks import comparison, contest
from training_hooks.comparison import Answers, Complete, Outcome
from training_hooks.gate import Check
from training_hooks.gate import Outcome as CheckOutcome
from training_hooks.job_errors import JobCancelledError
from training_hooks.progress import Watch
from training_hooks.round import run_round
from training_hooks.round_files import CANCEL, PROGRESS, REPORT, RESULT
from training_hooks.round_options import default_options
from training_hooks.round_report import curves_of
from training_hooks.snapshot import Snapshot, SnapshotOptions, build_snapshot
from training_hooks.steps import Step

# The trainer asks the model under its old name.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
SHORT = replace(
    default_options("tiny"),
    rollouts=4,
    prompts_per_step=2,
    max_steps=2,
    save_every=1,
    rank=4,
    cold_start=1,
    rehearsal_held_out=4,
)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Corrections of fourteen scenes in a style that the bundled pair does not know."""
    files: dict[str, bytes] = {}
    made: list[Correction] = []
    for number, sample in enumerate(scene_samples(14, 78, "shifted"), 1):
        stream = io.BytesIO()
        image = sample.image()
        image.save(stream, "PNG")
        base = correction(number, task=number, verdict=Verdict.DRAWN_BY_HAND)
        files[base.image] = stream.getvalue()
        true = tuple(
            LabelledSegment(masks.encode(mask), "Object", sample.request) for mask in sample.masks
        )
        made.append(
            replace(
                base,
                image_sha256=hashlib.sha256(files[base.image]).hexdigest(),
                size=ImageSize(image.width, image.height),
                requests=(sample.request,),
                predicted=(),
                corrected=true,
                verdict=Verdict.DRAWN_BY_HAND if true else Verdict.NOTHING_HERE,
                edit_iou=None,
            )
        )

    def fetch(one: Correction) -> bytes:
        if one.image not in files:
            raise FetchError("There is no such image.")
        return files[one.image]

    folder = tmp_path_factory.mktemp("snapshots")
    return build_snapshot(made, fetch, folder, SnapshotOptions(held_out_share=0.5), None)


@pytest.mark.slow
def test_a_round_is_judged_on_what_it_did_not_learn_from_and_says_so(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    folder = tmp_path / "round-1"
    result = run_round(snapshot, "tiny", SHORT, folder, note="It was a full moon.")
    assert result is not None
    assert json.loads((folder / RESULT).read_text()) == result
    assert result["steps"] == 2
    assert (folder / result["best"] / "adapter_model.safetensors").exists()
    assert len(result["checkpoint_mean_ious"]) == 2
    assert 0 <= result["champion_mean_iou"] <= 1
    figures = result["verdict"]["figures"]["held_out"]
    assert result["mean_iou"] == pytest.approx(figures["challenger"]["mean_iou"])
    assert result["champion_mean_iou"] == pytest.approx(figures["champion"]["mean_iou"])
    # So few images decide nothing, whatever was learnt.
    assert not result["verdict"]["promote"]
    assert any("held-out" in reason for reason in result["verdict"]["reasons"])
    assert result["verdict"]["figures"]["rehearsed"]["champion"]["cases"] == 4  # of those rehearsed
    report = (folder / REPORT).read_text()
    assert snapshot.id in report
    assert "Left out" in report
    assert "It was a full moon." in report
    assert json.loads((folder / PROGRESS).read_text())["phase"] == "comparing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failed", "share"),
    [("What is rehearsed: mean mask IoU does not fall", 0.4), ("Mean mask IoU rises", 0.9)],
)
def test_a_model_that_forgot_is_tried_with_less_and_one_that_learnt_too_little_with_more(
    failed: str,
    share: float,
    snapshot: Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[list[str]] = []
    check = Check(failed, CheckOutcome.FAILED, "")

    def judged(
        serving: Answers, found: list[tuple[Path, Answers]], examples: Any, complete: Complete
    ) -> Outcome:
        compared.append([str(path.relative_to(tmp_path / "round-5")) for path, _ in found])
        outcome = comparison.judge(serving, found, examples, complete=complete)
        verdict = replace(outcome.verdict, checks=(check,))
        return replace(outcome, best=found[-1][0], verdict=verdict)

    monkeypatch.setattr(contest, "judge", judged)
    one_step = replace(SHORT, max_steps=1, cold_start=0)
    result = run_round(snapshot, "tiny", one_step, tmp_path / "round-5")
    assert result is not None
    assert compared == [
        ["blended/0.6/checkpoint-1"],
        ["blended/0.6/checkpoint-1", f"blended/{share}/checkpoint-1"],
    ]
    assert result["best"] == f"blended/{share}/checkpoint-1"
    assert result["share"] == pytest.approx(share)
    alphas = [
        read_adapter(tmp_path / "round-5" / path).alpha for path in ("checkpoint-1", result["best"])
    ]
    assert alphas[1] == pytest.approx(share * alphas[0])


def test_a_cancelled_round_ends_and_leaves_no_result(snapshot: Snapshot, tmp_path: Path) -> None:
    folder = tmp_path / "round-2"
    folder.mkdir()
    (folder / CANCEL).touch()
    with pytest.raises(JobCancelledError):
        run_round(snapshot, "tiny", SHORT, folder)
    assert not (folder / RESULT).exists()


def test_a_round_is_cancelled_in_the_middle_of_its_cold_start(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "round-3"
    told: list[str] = []

    def say(self: Watch, **what: object) -> None:
        told.append(str(what["phase"]))
        if what["phase"] == "cold start":
            (folder / CANCEL).touch()

    monkeypatch.setattr(Watch, "say", say)
    with pytest.raises(JobCancelledError):
        run_round(snapshot, "tiny", SHORT, folder)
    assert told == ["loading", "cold start"]
    assert not (folder / RESULT).exists()


@pytest.mark.slow
def test_two_processes_train_one_round_together(snapshot: Snapshot, tmp_path: Path) -> None:
    config = tmp_path / "two.yaml"
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nuse_cpu: true\n"
        "num_machines: 1\nnum_processes: 2\nmixed_precision: 'no'\n"
    )
    short = {name: getattr(SHORT, name) for name in ("rollouts", "prompts_per_step", "max_steps")}
    options = tmp_path / "options.json"
    options.write_text(
        json.dumps({**short, "save_every": 1, "rank": 4, "cold_start": 1, "rehearsal": ""})
    )
    folder = tmp_path / "round-4"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    what = ["--snapshot", str(snapshot.folder), "--out", str(folder), "--preset", "tiny"]
    ended = subprocess.run(
        [*launch, "-m", "training_hooks.launched", *what, "--options", str(options)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    result = json.loads((folder / RESULT).read_text())
    assert result["steps"] == 2
    # Nobody goes on from a round that is whole.
    assert not [*folder.rglob("rng_state*"), *folder.rglob("optimizer*"), *folder.rglob("sched*")]
    # A step takes as many prompts as with one process.
    state = json.loads((folder / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["epoch"] == pytest.approx(2 * 2 / len(snapshot.train), rel=0.3)
    assert state["train_batch_size"] == 4  # each process has half of the eight answers of a step


def test_curves_hold_every_reward_over_the_steps() -> None:
    steps = [Step(n, 2, {"reward": n / 10, "reward/mask": 0.5, "lr": 1.0}) for n in (1, 2)]
    found = {curve.name: curve.points for curve in curves_of(steps)}
    assert found == {
        "reward": ((1.0, 0.1), (2.0, 0.2)),
        "reward/mask": ((1.0, 0.5), (2.0, 0.5)),
    }


def _round(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training_hooks.round", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_its_process_says_by_its_exit_status_how_it_ended(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    folder, options = tmp_path / "round-3", tmp_path / "options.json"
    given = ("--snapshot", snapshot.folder, "--out", folder, "--preset", "tiny")
    options.write_text('{"rank": "many"}')
    refused = _round(*given, "--options", options)
    assert refused.returncode == 2
    assert json.loads(refused.stderr.splitlines()[-1])["error"] == "ConfigError"
    folder.mkdir()
    (folder / CANCEL).touch()
    assert _round(*given).returncode == 3

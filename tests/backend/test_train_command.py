"""`segzero train`, and what `segzero status` and `/metrics` say of rounds; nothing is trained."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis

from backend.app import create_app
from backend.jobs import ALLOWED
from backend.learning.folders import loop_name, snapshots_folder
from backend.learning.launch import SHIPPED, config_file, gpus, launcher
from backend.learning.round_settings import round_options, round_overrides, setting_of
from backend.learning.round_state import Phase, RoundState, read_state, write_state
from backend.learning.round_words import one_line
from backend.learning.train_queue import enqueue, newest_job
from backend.learning.trigger import Triggers, consider, consider_soon
from backend.redis_access import open_redis
from backend.settings import Settings, load_settings
from segzero_ml.corrections import Verdict
from segzero_ml.errors import ConfigError
from segzero_ml.rewards import RewardWeights
from tests.backend.corrected import PROJECT, Run, World, runner, world
from tests.training_hooks.store_samples import MORNING, correction
from training_hooks.loop_reader import START_TRAINING, note_end, note_gone
from training_hooks.queues import QueueName, Queues
from training_hooks.round_options import RoundOptions
from training_hooks.store_reader import text

NAME = "label-studio-7"


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def here(_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    return _world.use(monkeypatch)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def fill(here: World, count: int, accepted: int = 0) -> None:
    for number in range(1, count + accepted + 1):
        verdict = Verdict.EDITED if number <= count else Verdict.ACCEPTED
        here.store.upsert(correction(number, number, task=number, verdict=verdict, project=PROJECT))


def queues(here: World) -> Queues:
    return Queues(here.client, ALLOWED)


def state(job: str = "job", **given: object) -> RoundState:
    began = RoundState(job, datetime.now(UTC).isoformat())
    return replace(began, **given)  # type: ignore[arg-type]


def test_too_few_corrections_are_refused_with_what_is_missing(here: World, run: Run) -> None:
    fill(here, 12)
    ran = run("train", "--project", 7)
    assert ran.code == 1
    assert "at least 20 corrections" in ran.err
    assert "8 more" in ran.err
    assert "What to do" in ran.err
    assert queues(here).depth(QueueName.TRAIN).waiting == 0


def test_a_round_by_hand_waits_in_the_queue_and_there_is_only_one(here: World, run: Run) -> None:
    fill(here, 20)
    ran = run("train", "--project", 7)
    assert ran.code == 0
    assert "No worker of the queue train runs" in ran.err
    again = run("train", "--project", 7)
    assert again.code == 1
    assert "running or waiting already" in again.err
    assert "--cancel" in again.err
    assert queues(here).depth(QueueName.TRAIN).waiting == 1
    assert run("train", "--project", 7, "--cancel").code == 0
    assert queues(here).depth(QueueName.TRAIN).waiting == 0
    assert run("train", "--project", 7).code == 0


def test_a_dry_run_says_what_would_happen_and_why_and_changes_nothing(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_HELD_OUT_SHARE", "0.7")
    fill(here, 30, accepted=5)
    ran = run("train", "--project", 7, "--dry-run")
    assert ran.code == 0
    assert "30 of 50 new corrections" in " ".join(ran.out.split())
    assert "By hand one would" in ran.out
    found = json.loads(run("train", "--project", 7, "--dry-run", "--json").out)
    assert found["new"] + found["older"] + found["accepted"] + found["held_out"] <= 35
    assert found["held_out"] > 0
    assert 0 < found["steps"] <= found["options"]["max_steps"]
    assert found["by_itself"]["train"] is False
    monkeypatch.setenv("SEGZERO_TRAIN_EVERY_CORRECTIONS", "30")
    assert "There are 30 new corrections" in run("train", "--project", 7, "--dry-run").out
    assert queues(here).depth(QueueName.TRAIN).waiting == 0
    assert not (here.folder / "snapshots").exists()


def test_a_dry_run_counts_the_step_that_the_last_few_prompts_make(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_HELD_OUT_SHARE", "0.7")
    fill(here, 40)
    for name, value in {"MAX_STEPS": "1000", "EPOCHS": "1", "PROMPTS_PER_STEP": "1000"}.items():
        monkeypatch.setenv(f"SEGZERO_TRAIN_{name}", value)
    prompts = json.loads(run("train", "--project", 7, "--dry-run", "--json").out)["prompts"]
    monkeypatch.setenv("SEGZERO_TRAIN_PROMPTS_PER_STEP", str(prompts - 1))
    assert json.loads(run("train", "--project", 7, "--dry-run", "--json").out)["steps"] == 2


def test_a_dry_run_is_of_a_split_that_is_known_or_none(here: World, run: Run) -> None:
    fill(here, 30)
    split = snapshots_folder(here.settings, 7) / "split.json"
    split.parent.mkdir(parents=True)
    split.write_text("{")
    ran = run("train", "--project", 7, "--dry-run")
    shutil.rmtree(split.parent)
    assert ran.code == 1
    assert "nobody knows which images are held out" in " ".join(ran.err.split())


def test_a_dry_run_says_that_too_little_would_be_held_out_and_how_much_is_missing(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_EVERY_CORRECTIONS", "30")
    fill(here, 30)
    ran = run("train", "--project", 7, "--dry-run", "--json")
    found = json.loads(ran.out)
    assert ran.code == 1
    assert found["by_hand"]["train"]
    assert 0 < found["held_out_images"] < 20
    said = " ".join(ran.err.split())
    assert "A round would end before anything is trained" in said
    assert f"held-out cases of only {found['held_out_images']} images; at least 20" in said
    assert f"About {(20 - found['held_out_images']) * 5} more will do: 20 % are held out" in said
    assert found["refusal"] in said
    assert "By hand one would" not in run("train", "--project", 7, "--dry-run").out
    monkeypatch.setenv("SEGZERO_TRAIN_HELD_OUT_SHARE", "0.8")
    monkeypatch.setenv("SEGZERO_TRAIN_HELD_OUT_MOST", "19")
    capped = run("train", "--project", 7, "--dry-run")
    assert "SEGZERO_TRAIN_HELD_OUT_MOST must be more than 19" in " ".join(capped.err.split())


def test_a_dry_run_tells_new_corrections_from_older_ones(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_HELD_OUT_SHARE", "0.6")
    fill(here, 30)
    note_end(here.store, PROJECT, MORNING, here.store.mark(PROJECT))
    fill(here, 40)
    found = json.loads(run("train", "--project", 7, "--dry-run", "--json").out)
    assert 0 < found["new"] <= 10
    assert 0 < found["older"] <= 30


def test_a_dry_run_with_too_few_ends_with_1(here: World, run: Run) -> None:
    fill(here, 3)
    ran = run("train", "--project", 7, "--dry-run")
    assert ran.code == 1
    assert "No round would start" in ran.err


def test_a_project_that_is_gone_is_refused_with_what_looks_for_it_again(
    here: World, run: Run
) -> None:
    fill(here, 20)
    note_gone(here.store, PROJECT, MORNING)
    for more in ((), ("--dry-run",)):
        ran = run("train", "--project", 7, *more)
        assert ran.code == 1
        said = " ".join(ran.err.split())
        assert "no longer in Label Studio" in said
        assert "segzero sync --project 7 looks for it again" in said
    assert queues(here).depth(QueueName.TRAIN).waiting == 0


def test_settings_that_make_no_sense_are_refused_before_anything_starts(
    here: World, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(here, 20)
    monkeypatch.setenv("SEGZERO_TRAIN_WEIGHT_MASK", "0.1")
    ran = run("train", "--project", 7)
    assert ran.code == 1
    assert "The mask must weigh more" in ran.err
    assert queues(here).depth(QueueName.TRAIN).waiting == 0


def test_following_shows_a_round_to_its_verdict(here: World, run: Run) -> None:
    fill(here, 20)
    job_id = enqueue(queues(here), here.settings, 7, by_hand=True)
    assert job_id is not None
    report = "/data/rounds/report.html"
    why = "The images of 3 new corrections cannot be had at present from minio:9000."
    steps = [
        state(job_id, phase=Phase.WAITING, text=why),
        state(job_id, phase=Phase.TRAINING, step=1, steps=2, figures={"reward": 0.25}),
        state(job_id, phase=Phase.COMPARING, step=2, steps=2),
        state(
            job_id,
            phase=Phase.KEPT,
            text="The champion stays: Too few held-out images.",
            verdict=("Too few held-out images.",),
            report=report,
        ),
    ]

    def train() -> None:
        for one in steps:
            write_state(here.client, NAME, one)
            time.sleep(1.2)

    thread = threading.Thread(target=train)
    thread.start()
    ran = run("train", "--project", 7, "--follow")
    thread.join()
    assert ran.code == 0
    assert f"Waiting to try again. {why}" in ran.err
    assert "step 1 of 2, reward 0.250" in ran.err
    assert "Comparing" in ran.err
    assert "The champion stays" in ran.out
    assert "Too few held-out images." in ran.out
    assert report in ran.out


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.CANCELLED, Phase.REFUSED])
def test_following_a_round_that_is_not_whole_ends_with_1(
    here: World, run: Run, phase: Phase
) -> None:
    fill(here, 20)
    job_id = enqueue(queues(here), here.settings, 7, by_hand=True)
    write_state(here.client, NAME, state(job_id or "", phase=phase, text="There is no room left."))
    ran = run("train", "--project", 7, "--follow", "--json")
    assert ran.code == 1
    assert "There is no room left." in ran.err
    assert json.loads(ran.out.splitlines()[-1])["phase"] == phase.value


def test_the_count_start_training_and_age_ask_for_a_round_once(here: World) -> None:
    settings = load_settings(train_every_corrections=25)
    fill(here, 24)
    assert consider(here.client, settings, 7) is None
    fill(here, 25)
    assert consider(here.client, settings, 7) is not None
    assert consider(here.client, settings, 7) is None
    assert queues(here).depth(QueueName.TRAIN).waiting == 1


def test_start_training_asks_for_a_round(here: World) -> None:
    fill(here, 20)
    assert consider(here.client, here.settings, 7) is None
    here.store.set_watermark(PROJECT, START_TRAINING, datetime.now(UTC))
    assert consider(here.client, here.settings, 7) is not None


def test_a_look_at_all_projects_asks_for_each_that_is_due(here: World) -> None:
    fill(here, 25)
    for number in range(100, 125):
        other = replace(PROJECT, project=8)
        here.store.upsert(correction(number, number, task=number, project=other))
    triggers = Triggers(load_settings(train_every_corrections=25))
    assert len(triggers.look_at_all()) == 2
    assert triggers.look_at_all() == ()


def test_a_project_that_cannot_be_looked_at_keeps_no_other_waiting_and_is_told_of_once(
    here: World, caplog: pytest.LogCaptureFixture
) -> None:
    fill(here, 25)
    for number in range(100, 125):
        other = replace(PROJECT, project=8)
        here.store.upsert(correction(number, number, task=number, project=other))
    (sequence,) = here.client.keys("*:7:sequence")
    watermarks = text(sequence).replace("sequence", "watermarks")
    here.client.hset(watermarks, START_TRAINING, "never")
    triggers = Triggers(load_settings(train_every_corrections=25))
    assert len(triggers.look_at_all()) == 1
    assert newest_job(queues(here), here.settings, 8) is not None
    assert triggers.look_at_all() == ()
    assert [one.args[0] for one in caplog.records if one.levelname == "WARNING"] == [7]  # type: ignore[index]


def test_an_error_that_nobody_foresaw_is_told_with_its_traceback_and_the_next_look_comes(
    here: World, caplog: pytest.LogCaptureFixture
) -> None:
    fill(here, 25)
    opened = 0

    def connect(settings: Settings) -> Redis:
        nonlocal opened
        opened += 1
        if opened == 1:
            raise RuntimeError("A full moon.")
        return open_redis(settings)

    triggers = Triggers(load_settings(train_every_corrections=25), connect=connect, every_s=0.05)
    triggers.start()
    deadline = time.monotonic() + 60
    while newest_job(queues(here), here.settings, 7) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    triggers.stop()
    assert "A full moon." in caplog.text
    assert "Traceback" in caplog.text


def test_of_many_ingest_jobs_in_a_row_one_looks(here: World) -> None:
    settings = load_settings(train_every_corrections=20)
    consider_soon(here.client, settings, [7])
    fill(here, 20)
    consider_soon(here.client, settings, [7])
    assert newest_job(queues(here), settings, 7) is None
    here.client.delete(*here.client.keys("segzero:considered:*"))
    consider_soon(here.client, settings, [7])
    assert newest_job(queues(here), settings, 7) is not None


def test_a_round_whose_job_died_is_recorded_as_failed(here: World) -> None:
    fill(here, 20)
    write_state(here.client, NAME, state("a-job-that-is-gone", phase=Phase.TRAINING))
    assert consider(here.client, load_settings(train_every_corrections=20), 7) is None
    found = read_state(here.client, NAME)
    assert found is not None
    assert found.phase == "failed"
    assert "died" in found.text


def test_a_round_whose_job_waits_for_its_next_try_is_left_alone(here: World) -> None:
    fill(here, 20)
    job_id = enqueue(queues(here), here.settings, 7)
    write_state(here.client, NAME, state(job_id or "", phase=Phase.WAITING))
    assert consider(here.client, here.settings, 7) is None
    found = read_state(here.client, NAME)
    assert found is not None
    assert found.phase == "waiting"


def test_while_corrections_are_collected_it_is_told_how_many_were_looked_at() -> None:
    collecting = state(phase=Phase.SNAPSHOT, step=12, steps=300)
    assert one_line(collecting) == "Collecting corrections, 12 of 300"


def test_following_a_round_to_its_end_tells_what_it_could_not_learn_from(
    here: World, run: Run
) -> None:
    fill(here, 20)
    job_id = enqueue(queues(here), here.settings, 7, by_hand=True)
    lost = {"its image cannot be fetched": 2, "the host of its image was away": 1}
    text = "v1-1a2b3c4d was promoted. Corrections left out: 2 (its image cannot be fetched)."
    ended = state(job_id or "", phase=Phase.PROMOTED, version="v1-1a2b3c4d", left_out=lost)
    write_state(here.client, NAME, replace(ended, text=text))
    out = " ".join(run("train", "--project", 7, "--follow").out.split())
    assert out.startswith("v1-1a2b3c4d was promoted. Corrections left out: 2 (its image")
    assert "1 (the host of its image was away)." in out


def test_status_and_metrics_tell_of_the_newest_round(here: World, run: Run) -> None:
    fill(here, 3)
    write_state(
        here.client,
        NAME,
        state(
            phase=Phase.PROMOTED,
            round="abc-1",
            text="v1-1a2b3c4d was promoted.",
            version="v1-1a2b3c4d",
            held_out_iou=0.75,
            champion_iou=0.5,
            seconds=12.5,
            peak_memory_bytes=1000,
        ),
    )
    assert "v1-1a2b3c4d was promoted." in " ".join(run("status").out.split())
    (found,) = json.loads(run("status", "--json").out)["projects"]
    assert found["round"]["version"] == "v1-1a2b3c4d"
    text = create_app(here.settings).state.services.metrics.render().decode()
    labels = 'label_studio="label-studio",project="7"'
    assert 'segzero_round{label_studio="label-studio",phase="promoted",project="7"} 1.0' in text
    assert f"segzero_round_held_out_iou{{{labels}}} 0.75" in text
    assert f"segzero_round_seconds{{{labels}}} 12.5" in text


def test_a_state_that_cannot_be_read_hides_nothing_else(here: World, run: Run) -> None:
    fill(here, 3)
    here.client.set(f"segzero:round:{NAME}", b'{"job": 1, "phase": "sideways"}')
    assert read_state(here.client, NAME) is None
    assert json.loads(run("status", "--json").out)["projects"][0]["round"] is None


def test_every_option_of_a_round_and_every_weight_is_a_setting() -> None:
    options = {setting_of(one.name) for one in fields(RoundOptions) if one.name != "weights"}
    weights = {f"train_weight_{one.name}" for one in fields(RewardWeights)}
    assert options | weights <= set(Settings.model_fields)


def test_only_what_was_set_goes_to_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    assert round_overrides(load_settings()) == {}
    monkeypatch.setenv("SEGZERO_TRAIN_RANK", "4")
    monkeypatch.setenv("SEGZERO_TRAIN_VISION", "false")
    monkeypatch.setenv("SEGZERO_TRAIN_WEIGHT_BOX", "0.2")
    found = round_overrides(load_settings())
    assert found == {"rank": 4, "train_vision": False, "weights": {"box": 0.2}}
    options = round_options(load_settings())
    assert (options.rank, options.weights.box, options.weights.mask) == (4, 0.2, 1.0)


def test_one_gpu_or_none_needs_no_launcher_and_several_get_one(tmp_path: Path) -> None:
    plain = launcher(load_settings(), {"CUDA_VISIBLE_DEVICES": "0"})
    assert plain[-1] == "training_hooks.round"
    several = launcher(load_settings(), {"CUDA_VISIBLE_DEVICES": "0,1,2"})
    assert several[several.index("--num_processes") + 1] == "3"
    assert several[-1] == "training_hooks.launched"
    own = tmp_path / "own.yaml"
    own.write_text("num_processes: 2\n")
    asked = launcher(load_settings(train_launch=str(own)), {"CUDA_VISIBLE_DEVICES": ""})
    assert str(own) in asked
    assert "--num_processes" not in asked
    with pytest.raises(ConfigError, match="no configuration"):
        launcher(load_settings(train_launch="nowhere"), {})


def test_gpus_are_counted_by_their_devices(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus({}, tmp_path) == 2
    assert gpus({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_configurations_are_there(name: str) -> None:
    path = config_file(name)
    assert path is not None
    assert "distributed_type" in path.read_text()


def test_a_long_name_of_a_label_studio_with_dots_is_a_name_of_locks_too() -> None:
    settings = load_settings(label_studio_name="a.very.long.name." + "x" * 40)
    name = loop_name(settings, 7)
    assert name.endswith("-7")
    assert len(name) <= 64
    assert "." not in name

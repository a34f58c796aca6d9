"""What `make bench-learning` does around the models: scenes, shuffling, checks, table, chart."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.demo.annotator import Truth
from backend.xml_tags import read_tags
from segzero_ml.errors import ConfigError
from segzero_ml.tiny.scenes import Style
from segzero_ml.types import BoolMask, ImageSize
from tests.benchmarks.learning.__main__ import keep_to, plan_of
from tests.benchmarks.learning.chart import chart
from tests.benchmarks.learning.cpu import CpuWatch, cpu_seconds
from tests.benchmarks.learning.findings import Learnt, checks, table
from tests.benchmarks.learning.plan import Arm
from tests.benchmarks.learning.project import shuffled


def report(giou: float, n_acc: float = 1.0) -> dict[str, Any]:
    return {"gIoU": giou, "n_acc": n_acc, "format_errors": 0.0}


def learnt(
    shifted: float = 0.7, plain: float = 0.8, *, shuffled: bool = False, **changed: Any
) -> Learnt:
    loop = {
        "promoted": True,
        "served": "tiny@1+v1",
        "steps": 24,
        "cpu_seconds": 700.0,
        "annotator": {"corrections": 150, "accepted": 90},
        "round": {"phase": "kept" if shuffled else "promoted"},
        **changed,
    }
    before: dict[Style, Any] = {"shifted": report(0.5, 0.6), "plain": report(0.8)}
    after: dict[Style, Any] = {"shifted": report(shifted, 0.9), "plain": report(plain)}
    return Learnt("seed-0", shuffled, loop, before, after)


def test_every_promise_is_kept_by_a_round_that_taught_and_forgot_nothing() -> None:
    made = list(checks(learnt()))
    assert len(made) == 8
    assert all(check.holds for check in made)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (learnt(shifted=0.59), "shifted gIoU +9.0 points"),
        (learnt(plain=0.77), "plain gIoU -3.0 points"),
        (learnt(promoted=False), "was promoted"),
        (learnt(served=None), "next prediction"),
        (learnt(cpu_seconds=1201.0), "CPU minutes"),
        (learnt(annotator={"corrections": 151, "accepted": 90}), "151 corrections"),
        (learnt(shuffled=True), "wrong corrections"),
        (learnt(shuffled=True, promoted=False, round={"phase": "failed"}), "is failed"),
    ],
)
def test_a_broken_promise_is_named(broken: Learnt, words: str) -> None:
    failed = [check.text for check in checks(broken) if not check.holds]
    assert failed
    assert any(words in text for text in failed)


def test_wrong_corrections_need_only_be_kept_out() -> None:
    [check] = checks(learnt(0.1, 0.1, shuffled=True, promoted=False, served=None))
    assert check.holds


def test_the_table_has_a_row_for_each_project() -> None:
    rows = table([learnt(), learnt(shuffled=True)]).splitlines()
    assert len(rows) == 4
    assert "0.500 → 0.700" in rows[2]
    assert len({row.count("|") for row in rows}) == 1


def mask(size: ImageSize, left: int) -> BoolMask:
    made = np.zeros((size.height, size.width), dtype=np.bool_)
    made[:, left : left + size.width // 4] = True
    return made


def test_shuffled_masks_are_those_of_other_pictures_at_the_picture_s_own_size() -> None:
    sizes = [ImageSize(40 + 4 * number, 20 + 2 * number) for number in range(5)]
    truths = {
        number: Truth(size, (mask(size, 0),) * number) for number, size in enumerate(sizes, start=1)
    }
    found = shuffled(truths, np.random.default_rng(0))
    assert found.keys() == truths.keys()
    for number, one in found.items():
        assert one.size == truths[number].size
        assert len(one.masks) != number  # as many as another picture has
        assert all(each.shape == (one.size.height, one.size.width) for each in one.masks)
        assert all(each.any() and each.dtype == np.bool_ for each in one.masks)
    assert sorted(len(one.masks) for one in found.values()) == [1, 2, 3, 4, 5]


def test_the_command_line_names_projects_and_settings(tmp_path: Path) -> None:
    given = ["--out", str(tmp_path), "--seeds", "4", "--shuffled-seeds", "--set", "SEGZERO_A=b=c"]
    plan = plan_of(given)
    assert plan.arms == (Arm(4, is_shuffled=False),)
    assert plan.settings == {"SEGZERO_A": "b=c"}
    assert plan.folder(plan.arms[0]) == tmp_path / "seed-4"


def test_results_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    keep_to(plan_of(["--out", str(tmp_path), "--seeds", "0"]))
    keep_to(plan_of(["--out", str(tmp_path), "--seeds", "1", "--no-curve"]))
    with pytest.raises(ConfigError, match="other settings"):
        keep_to(plan_of(["--out", str(tmp_path), "--held-out", "20"]))


def test_the_chart_is_an_svg_with_a_curve_for_each_round() -> None:
    curves = {"shifted": {"seed-0": [(0.0, 0.5), (8.0, 0.6)], "seed-1": [(0.0, 0.5), (8.0, 0.4)]}}
    tags = read_tags(chart(curves, "gIoU & more"))
    first, second = (tag.attributes["d"].split(" L") for tag in tags if tag.name == "path")
    assert first[0] == second[0]
    assert float(first[1].split()[1]) < float(second[1].split()[1])  # higher is further up


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_time_of_rounds_is_that_of_their_processes_alone() -> None:
    code = "import time\nend = time.process_time() + 1.2\nwhile time.process_time() < end: pass"
    wait = "import sys; sys.stdin.read()"
    with CpuWatch(os.getpid()) as watch:
        busy = [sys.executable, "-c", f"{code}\n{wait}"]
        pipes = {"stdin": subprocess.PIPE}
        with (
            subprocess.Popen([*busy, "training_hooks.round"], **pipes) as one,  # type: ignore[call-overload]
            subprocess.Popen(busy, **pipes) as other,  # type: ignore[call-overload]
        ):
            give_up = time.monotonic() + 60
            while min(cpu_seconds(one.pid), cpu_seconds(other.pid), watch.seconds) < 1.2:
                assert time.monotonic() < give_up
                time.sleep(0.2)
            one.stdin.close()
            other.stdin.close()
    assert 1.2 <= watch.seconds < 2.2

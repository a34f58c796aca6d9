"""A round's report with scenes, curves and figures, as a round would make it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime

from scipy import ndimage

from segzero_ml import masks
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.types import Rle
from tests.training_hooks.gate_cases import absent, cases
from training_hooks.faithfulness import Faithfulness
from training_hooks.gate import Case, GateOptions, Verdict, judge
from training_hooks.report import Curve, Picture, RoundReport
from training_hooks.report_pictures import Group, overlay, shown


def verdict(promoted: bool = True) -> Verdict:
    chance = random.Random(7)
    kinds = ["colour", "superlative", "relation", "implicit"]
    champion: list[Case] = [
        replace(one, kind=kinds[at % 4], iou=chance.uniform(0.2, 0.7))
        for at, one in enumerate(cases([0.5] * 48))
    ]
    gain = 0.1 if promoted else -0.02
    challenger = [
        replace(one, iou=min(1, max(0, one.iou + gain + chance.gauss(0, 0.1)))) for one in champion
    ]
    silent = [absent(number, number > 1) for number in range(8)]
    faith = Faithfulness(40, 40, 0.71, 0.25, 40, 0.43, 0.55, 38, 0.92)
    return judge(
        champion + silent,
        challenger + silent,
        (cases([0.8] * 12), cases([0.79] * 12)),
        (cases([0.85] * 30), cases([0.86] * 30)),
        GateOptions(resamples=500),
        faithfulness=(faith, replace(faith, removed_changed=0.3, named=0.95)),
    )


def curves() -> tuple[Curve, ...]:
    chance = random.Random(3)
    rise = [
        (float(step), 0.8 - 0.4 * math.exp(-step / 60) + chance.gauss(0, 0.05))
        for step in range(1, 201)
    ]
    flat = [(float(step), 1.0) for step in range(1, 201)]
    held_out = [(float(step), 0.5 + step / 1000) for step in range(0, 201, 50)]
    return (
        Curve("reward mask", tuple(rise)),
        Curve("reward format", tuple(flat)),
        Curve("held-out mean mask IoU", tuple(held_out)),
        Curve("kl", ()),
    )


def picture(
    seed: int, group: Group = "best", request: str | None = None, note: str = ""
) -> Picture:
    """A scene whose mask the champion cut too large and the challenger nearly right."""
    sample = next(one for one in scene_samples(20, seed) if len(one.masks) > 0)
    image, true = sample.image(), [masks.encode(one) for one in sample.masks]
    wide, near = (
        [masks.encode(ndimage.shift(one, by, order=0, mode="constant")) for one in sample.masks]
        for by in ((14, 22), (2, 3))
    )
    return Picture(
        group=group,
        request=sample.request if request is None else request,
        kind=sample.kind,
        champion_iou=_iou(wide[0], true[0]),
        challenger_iou=_iou(near[0], true[0]),
        champion_note=note or "The shape stands out.",
        challenger_note=note or "It is the one of this colour, and no other is.",
        image=shown(image),
        before=overlay(image, wide, true),
        after=overlay(image, near, true),
    )


def report(promoted: bool = True, pictures: tuple[Picture, ...] = ()) -> RoundReport:
    return RoundReport(
        project="Tabletop",
        round_id="round-3",
        champion="tiny@1f3a5b7c",
        challenger="tiny@1f3a5b7c+r3",
        finished_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        verdict=verdict(promoted),
        curves=curves(),
        pictures=pictures,
        facts=(("Corrections", "120 new, 40 older"), ("Time", "11 min 20 s")),
    )


def _iou(a: Rle, b: Rle) -> float:
    return masks.iou(masks.decode(a), masks.decode(b))

"""The gate: who is promoted, who is not, and what is said about it."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segzero_ml.errors import ConfigError, InputError
from segzero_ml.metrics import SampleResult
from tests.training_hooks.gate_cases import absent, case, cases, raised, unreadable
from training_hooks.faithfulness import Faithfulness
from training_hooks.gate import Case, GateOptions, Outcome, Verdict, judge

QUICK = GateOptions(resamples=400)
IOUS = st.floats(0, 1, allow_subnormal=False)


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if check.outcome is Outcome.FAILED]


def outcome(verdict: Verdict, name: str) -> Outcome:
    return next(check.outcome for check in verdict.checks if check.name == name)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[list[Case], list[Case]]:
    """Two models on the same cases, several of them about one image."""
    number = draw(st.integers(1, 40))
    images = draw(st.lists(st.integers(0, 30), min_size=number, max_size=number))
    models = []
    for _ in range(2):
        answered = [case(at, draw(IOUS), image=image) for at, image in enumerate(images)]
        answered += [absent(at, draw(st.booleans())) for at in range(3)]
        models.append(
            [unreadable(one) if draw(st.integers(0, 9)) == 0 else one for one in answered]
        )
    return models[0], models[1]


@settings(max_examples=60, deadline=None)
@given(rounds())
def test_identical_models_are_never_promoted(models: tuple[list[Case], list[Case]]) -> None:
    champion, _ = models
    verdict = judge(champion, list(champion), (champion, champion), options=QUICK)
    assert not verdict.promote
    assert verdict.reasons


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 0.6), min_size=20, max_size=60), st.floats(0.05, 0.4), st.data())
def test_a_model_better_on_every_case_by_a_clear_margin_is_promoted(
    ious: list[float], margin: float, data: st.DataObject
) -> None:
    champion = cases(ious)
    by = data.draw(st.lists(st.floats(margin, 0.4), min_size=len(ious), max_size=len(ious)))
    challenger = [replace(one, iou=one.iou + more) for one, more in zip(champion, by, strict=True)]
    verdict = judge(champion, challenger, (champion, challenger), options=QUICK)
    assert verdict.promote, verdict.reasons
    assert not judge(challenger, champion, (challenger, champion), options=QUICK).promote


@settings(max_examples=60, deadline=None)
@given(rounds(), st.randoms(use_true_random=False), st.integers(0, 2**32))
def test_the_order_of_the_cases_changes_nothing(
    models: tuple[list[Case], list[Case]], chance: random.Random, seed: int
) -> None:
    champion, challenger = models
    options = replace(QUICK, seed=seed, least_images=2)
    older = (challenger, champion)
    verdict = judge(champion, challenger, older, older, options)
    mixed = [chance.sample(one, len(one)) for one in (champion, challenger, *older, *older)]
    pairs = (mixed[2], mixed[3]), (mixed[4], mixed[5])
    assert judge(mixed[0], mixed[1], *pairs, options) == verdict


def test_the_figures_are_those_worked_by_hand() -> None:
    champion = [
        case(0, 0.2, kind="a"),
        case(1, 0.6, kind="b"),
        case(2, 0.4, image=1, kind="b"),
        absent(0, True),
        absent(1, False),
    ]
    challenger = [
        replace(case(0, 0.5, kind="a"), seconds=1.5),
        case(1, 0.6, kind="b"),
        unreadable(case(2, 0.4, image=1, kind="b")),
        unreadable(absent(0, True)),  # a text that cannot be read does not say "nothing"
        absent(1, True),
    ]
    held_out = judge(champion, challenger, options=QUICK).figures.held_out
    before, after = held_out.champion, held_out.challenger
    assert (before.cases, before.images, before.without_target) == (5, 4, 2)
    assert before.mean_iou == pytest.approx((0.2 + 0.6 + 0.4 + 1 + 0) / 5)
    assert after.mean_iou == pytest.approx((0.5 + 0.6 + 0 + 0 + 1) / 5)
    assert before.mean_iou_with_target == pytest.approx(0.4)
    assert before.ciou == pytest.approx((200 + 600 + 400) / (3000 + 100))
    assert (before.n_acc, after.n_acc) == (0.5, 0.5)
    assert (before.format_errors, after.format_errors) == (0, 0.4)
    assert (before.seconds_median, after.seconds_median) == (0.5, 0.5)
    assert after.seconds_p95 == pytest.approx(1.3)  # between the fourth and the fifth of five
    assert held_out.gain is not None
    assert held_out.gain.mean == pytest.approx((0.3 - 0.4 - 1 + 1) / 5)
    assert (held_out.gain.images, held_out.gain.changed) == (4, 4)
    assert held_out.readable_cases == 3
    assert held_out.readable_gain == pytest.approx((0.3 + 0 + 1) / 3)
    assert [(one.kind, one.cases) for one in held_out.kinds] == [("a", 1), ("absent", 2), ("b", 2)]
    assert held_out.kinds[2].champion_iou == pytest.approx(0.5)
    assert held_out.kinds[2].challenger_iou == pytest.approx(0.3)


def test_too_few_images_promote_nothing_however_good_the_challenger() -> None:
    champion = cases([0.1] * 19)
    verdict = judge(champion, raised(champion, 0.8), options=QUICK)
    assert failed(verdict) == ["Enough held-out images"]
    assert "only 19 images; at least 20 are needed" in verdict.reasons[0]
    assert judge(cases([0.1] * 20), cases([0.9] * 20), options=QUICK).promote


def test_many_requests_about_few_images_are_few_images() -> None:
    champion = [case(number, 0.1, image=number % 5) for number in range(200)]
    verdict = judge(champion, raised(champion, 0.8), options=QUICK)
    assert failed(verdict) == ["Enough held-out images"]
    assert "only 5 images" in verdict.reasons[0]


def test_without_cases_nothing_is_promoted() -> None:
    verdict = judge([], [], options=QUICK)
    assert not verdict.promote
    assert "only 0 images" in verdict.reasons[0]


def test_a_gain_on_five_images_of_many_may_be_luck() -> None:
    champion = cases([0.4] * 50)
    challenger = [*raised(champion[:5], 0.5), *champion[5:]]
    verdict = judge(champion, challenger, options=QUICK)
    assert "changed on 5 of 50 held-out images" in verdict.reasons[0]
    assert judge(champion, [*raised(champion[:9], 0.5), *champion[9:]], options=QUICK).promote


def test_a_gain_within_the_interval_is_no_gain() -> None:
    champion = cases([0.5] * 40)
    mixed = [0.9 if number % 2 else 0.15 for number in range(40)]  # +0.4 and -0.35
    verdict = judge(champion, cases(mixed), options=QUICK)
    gain = verdict.figures.held_out.gain
    assert gain is not None
    assert gain.mean == pytest.approx(0.025)
    assert gain.low < 0 < gain.high
    assert failed(verdict) == ["Mean mask IoU rises"]
    assert "lower end must be above 0" in verdict.reasons[0]


def test_a_fall_of_n_acc_blocks_a_better_model() -> None:
    champion = cases([0.3] * 40)
    challenger = raised(champion, 0.3)
    silent, loud = ([absent(n, n >= wrong) for n in range(10)] for wrong in (0, 1))
    assert judge(champion + silent, challenger + silent, options=QUICK).promote
    verdict = judge(champion + silent, challenger + loud, options=QUICK)
    assert failed(verdict) == ["N-acc does not fall"]
    assert verdict.reasons == (
        "N-acc 1.000 → 0.900 on 10 requests without a target; a fall of at most 0.020 passes.",
    )
    lenient = replace(QUICK, n_acc_tolerance=0.1)
    assert judge(champion + silent, challenger + loud, options=lenient).promote


def test_unreadable_text_where_nothing_was_right_is_a_fall_of_n_acc() -> None:
    champion = cases([0.3] * 40)
    silent = [absent(number, True) for number in range(10)]
    broken = [unreadable(one) for one in silent[:2]] + silent[2:]
    verdict = judge(champion + silent, raised(champion, 0.6) + broken, options=QUICK)
    assert failed(verdict) == ["N-acc does not fall"]


SLICES = pytest.mark.parametrize(
    ("name", "of"), [("older", "Older corrections"), ("rehearsed", "What is rehearsed")]
)


def on_slice(
    name: str, champion: list[Case], challenger: list[Case], pair: tuple[list[Case], list[Case]]
) -> Verdict:
    older, rehearsed = (pair if name == of else ((), ()) for of in ("older", "rehearsed"))
    return judge(champion, challenger, older, rehearsed, QUICK)


@SLICES
def test_a_fall_on_what_was_known_blocks_a_better_model(name: str, of: str) -> None:
    champion = cases([0.3] * 40)
    challenger = raised(champion, 0.3)
    known = cases([0.8] * 10)

    def asked(after: float) -> Verdict:
        return on_slice(name, champion, challenger, (known, cases([after] * len(known))))

    assert asked(0.78).promote
    verdict = asked(0.77)
    assert failed(verdict) == [f"{of}: mean mask IoU does not fall"]
    assert "0.800 → 0.770 on 10 cases" in verdict.reasons[0]


@SLICES
def test_a_fall_of_n_acc_on_what_was_known_blocks_a_better_model(name: str, of: str) -> None:
    champion = cases([0.3] * 40)
    known = cases([0.5] * 100)
    silent = [absent(number, True) for number in range(7)]
    loud = [absent(number, False) for number in range(7)]
    before, after = known + silent, raised(known, 0.1) + loud[:1] + silent[1:]
    verdict = on_slice(name, champion, raised(champion, 0.3), (before, after))
    assert failed(verdict) == [f"{of}: N-acc does not fall"]


def test_what_was_rehearsed_does_not_hide_a_fall_on_older_corrections() -> None:
    champion = cases([0.3] * 40)
    many = cases([0.85] * 100)
    verdict = judge(
        champion,
        raised(champion, 0.3),
        (cases([0.8] * 20), cases([0.69] * 20)),
        (many, many),
        QUICK,
    )
    assert failed(verdict) == ["Older corrections: mean mask IoU does not fall"]


def test_a_better_model_that_lost_what_was_known_only_forgets() -> None:
    champion, known = cases([0.3] * 40), cases([0.8] * 10)
    lost = (known, cases([0.7] * 10))
    assert judge(champion, raised(champion, 0.3), lost, options=QUICK).only_forgets
    assert judge(champion, raised(champion, 0.3), rehearsed=lost, options=QUICK).only_forgets
    assert not judge(champion, champion, lost, options=QUICK).only_forgets
    assert not judge(champion, raised(champion, 0.3), options=QUICK).only_forgets


def test_a_model_that_is_hardly_better_and_lost_nothing_learns_too_little() -> None:
    champion, known = cases([0.3] * 40), cases([0.8] * 10)
    mixed = [*raised(champion[:21], 0.1), *(replace(one, iou=0.2) for one in champion[21:])]
    assert judge(champion, mixed, (known, known), options=QUICK).only_learns_too_little
    lost = (known, cases([0.7] * 10))
    assert not judge(champion, mixed, lost, options=QUICK).only_learns_too_little
    assert not judge(champion, raised(champion, 0.3), options=QUICK).only_learns_too_little


def test_a_gain_on_form_alone_promotes_nothing() -> None:
    whole = cases([0.7] * 60)
    champion = [unreadable(one) if at % 3 == 0 else one for at, one in enumerate(whole)]
    verdict = judge(champion, whole, options=QUICK)
    assert outcome(verdict, "Mean mask IoU rises") is Outcome.PASSED
    assert failed(verdict) == ["Not by form alone"]
    assert "a gain on form alone promotes nothing" in verdict.reasons[0]
    assert judge(champion, raised(whole, 0.05), options=QUICK).promote


def test_fewer_format_errors_at_the_same_masks_promote_nothing() -> None:
    answered = [replace(one, intersection=0) for one in cases([0.0] * 40)]
    champion = [replace(one, answered_nothing=True, format_error=True) for one in answered]
    verdict = judge(champion, answered, options=QUICK)
    assert not verdict.promote


def test_a_champion_that_never_writes_an_answer_can_be_replaced() -> None:
    challenger = cases([0.5] * 40)
    verdict = judge([unreadable(one) for one in challenger], challenger, options=QUICK)
    assert outcome(verdict, "Not by form alone") is Outcome.NOT_MEASURED
    assert verdict.promote


def test_what_could_not_be_measured_is_said_and_stops_nothing() -> None:
    champion = cases([0.3] * 40)
    verdict = judge(champion, raised(champion, 0.3), options=QUICK)
    assert verdict.promote
    assert outcome(verdict, "N-acc does not fall") is Outcome.NOT_MEASURED
    older = "Older corrections: mean mask IoU does not fall"
    assert outcome(verdict, older) is Outcome.NOT_MEASURED
    assert any("nothing to compare on" in reason for reason in verdict.reasons)


def test_the_best_of_many_challengers_needs_a_clearer_gain() -> None:
    chance = np.random.default_rng(5)
    champion = cases([0.5] * 60)
    gains = chance.normal(size=60)
    gains = 0.025 + 0.08 * (gains - gains.mean()) / gains.std()  # Student's t is 2.4
    challenger = cases([0.5 + float(gain) for gain in gains])
    alone, one_of_many = (
        judge(champion, challenger, options=replace(QUICK, challengers=number, resamples=4000))
        for number in (1, 50)
    )
    narrow, wide = alone.figures.held_out.gain, one_of_many.figures.held_out.gain
    assert narrow is not None
    assert wide is not None
    assert wide.low < narrow.low < narrow.high < wide.high
    assert alone.promote
    assert not one_of_many.promote
    assert "for the best of 50" in one_of_many.reasons[0]


@pytest.mark.parametrize(
    "challenger",
    [
        [case(0, 0.5)],
        [case(0, 0.5), case(2, 0.5)],
        [case(0, 0.5), case(1, 0.5), case(1, 0.5)],
        [case(0, 0.5), case(1, 0.5, image=7)],
        [case(0, 0.5), replace(case(1, 0.5), has_target=False)],
    ],
)
def test_models_that_answered_something_else_are_not_compared(challenger: list[Case]) -> None:
    with pytest.raises(InputError):
        judge([case(0, 0.4), case(1, 0.4)], challenger, options=QUICK)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("iou", math.nan),
        ("iou", 1.1),
        ("iou", -0.1),
        ("intersection", 1001),
        ("intersection", -1),
        ("seconds", math.inf),
        ("seconds", math.nan),
        ("seconds", -1.0),
        ("example", ""),
        ("image", ""),
    ],
)
def test_a_case_that_cannot_be_is_refused(field: str, value: object) -> None:
    with pytest.raises(InputError):
        replace(case(0, 0.5), **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"least_images": 1},
        {"least_changed": 0},
        {"confidence": 1.0},
        {"confidence": math.nan},
        {"challengers": 0},
        {"n_acc_tolerance": -0.1},
        {"older_tolerance": 2.0},
        {"resamples": 10},
        {"seed": -1},
    ],
)
def test_options_out_of_range_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        GateOptions(**wrong)  # type: ignore[arg-type]


def test_a_case_is_made_of_what_an_evaluation_says() -> None:
    result = SampleResult(3, 4, 0.75, "colour", True, False, False, 0.9)
    made = Case.of("e", "i", result, 0.25)
    assert made == Case("e", "i", "colour", 0.75, 3, 4, True, False, False, 0.25)
    lost = Case.of("e", "i", replace(result, iou=0.0, predicted_empty=True, failed=True), 0.25)
    assert lost.format_error


def test_a_verdict_becomes_json_without_infinities() -> None:
    faith = Faithfulness(3, 3, 0.5, 0.5, 0, None, None, 0, None)
    verdict = judge([case(0, 0.1)], [case(0, 0.9)], options=QUICK, faithfulness=(None, faith))
    written = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert written["promote"] is False
    assert written["figures"]["held_out"]["gain"]["low"] is None
    assert written["figures"]["challenger_faithfulness"]["removed_iou"] == 0.5
    assert written["checks"][0]["outcome"] == "failed"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 30), st.floats(0, 0.3))
def test_any_fall_of_n_acc_beyond_the_tolerance_blocks(
    requests: int, right_before: int, right_after: int, tolerance: float
) -> None:
    before, after = min(right_before, requests), min(right_after, requests)
    champion = cases([0.1] * 40)
    challenger = raised(champion, 0.8)  # so much better that nothing else could block it
    verdict = judge(
        champion + [absent(number, number < before) for number in range(requests)],
        challenger + [absent(number, number < after) for number in range(requests)],
        options=replace(QUICK, n_acc_tolerance=tolerance),
    )
    fell = before / requests - after / requests > tolerance + 1e-9
    assert ("N-acc does not fall" in failed(verdict)) == fell
    if fell:
        assert not verdict.promote


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(IOUS, IOUS), min_size=1, max_size=30), st.floats(0, 0.3))
def test_any_fall_on_older_data_beyond_the_tolerance_blocks(
    older: list[tuple[float, float]], tolerance: float
) -> None:
    champion = cases([0.1] * 40)
    verdict = judge(
        champion,
        raised(champion, 0.8),
        (cases(before for before, _ in older), cases(after for _, after in older)),
        options=replace(QUICK, older_tolerance=tolerance),
    )
    fall = math.fsum(before - after for before, after in older) / len(older)
    assert verdict.promote == (fall <= tolerance + 1e-9)

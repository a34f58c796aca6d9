"""Which of a round's checkpoints is chosen, and which of them are asked everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.training_hooks.gate_cases import cases, raised
from training_hooks.comparison import Answers, Complete, judge

BEFORE = cases([0.3, 0.4, 0.5, 0.6] * 10)
KNOWN = tuple(cases([0.8] * 30))
CHAMPION = Answers(tuple(BEFORE), (), rehearsed=KNOWN)
BEST, SECOND, WORST = Path("best"), Path("second"), Path("worst")


def better(by: float) -> Answers:
    return Answers(tuple(raised(BEFORE, by)), ())


def completing(asked: list[Path], forgetful: Path | None = None) -> Complete:
    """Answers to what is rehearsed, of which one checkpoint has forgotten much."""

    def complete(path: Path, answers: Answers) -> Answers:
        asked.append(path)
        known = raised(KNOWN, -0.3 if path == forgetful else 0.0)
        return replace(answers, rehearsed=tuple(known))

    return complete


def test_the_best_checkpoint_that_passes_is_chosen_and_no_other_is_asked_what_it_knew() -> None:
    asked: list[Path] = []
    found = [(SECOND, better(0.1)), (BEST, better(0.2)), (WORST, better(0.0))]
    outcome = judge(CHAMPION, found, (), complete=completing(asked))
    assert outcome.best == BEST
    assert outcome.verdict.promote
    assert asked == [BEST]
    assert outcome.challenger.rehearsed == KNOWN
    assert outcome.means == tuple(one.mean_iou for _, one in found)


def test_where_the_best_forgot_too_much_the_next_one_that_passes_is_chosen() -> None:
    asked: list[Path] = []
    found = [(BEST, better(0.2)), (SECOND, better(0.1)), (WORST, better(0.0))]
    outcome = judge(CHAMPION, found, (), complete=completing(asked, forgetful=BEST))
    assert outcome.best == SECOND
    assert outcome.verdict.promote
    assert asked == [BEST, SECOND]


def test_where_none_passes_everything_is_told_of_the_best_alone() -> None:
    asked: list[Path] = []
    found = [(WORST, better(-0.1)), (BEST, better(0.0))]
    outcome = judge(CHAMPION, found, (), complete=completing(asked))
    assert outcome.best == BEST
    assert not outcome.verdict.promote
    assert asked == [BEST]
    assert outcome.verdict.figures.rehearsed.champion.cases == len(KNOWN)


def test_one_that_only_forgot_is_told_as_such_though_a_worse_one_was_left_out() -> None:
    found = [(WORST, better(0.0)), (BEST, better(0.2))]
    outcome = judge(CHAMPION, found, (), complete=completing([], forgetful=BEST))
    assert outcome.best == BEST
    assert outcome.verdict.only_forgets

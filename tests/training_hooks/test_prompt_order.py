"""The order of prompts: TRL's, except for those that taught nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from trl.trainer.utils import RepeatSampler

from training_hooks.prompt_order import PromptOrder


def _order(prompts: int, at_once: int, rollouts: int, passes: int, spent: set[int]) -> PromptOrder:
    return PromptOrder(prompts, at_once, rollouts, passes, spent, seed=0)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(2, 4), st.integers(1, 3))
def test_the_first_epoch_is_the_one_that_the_trainer_would_have_made(
    batches: int, at_once: int, rollouts: int, passes: int
) -> None:
    prompts = batches * at_once
    ours = _order(prompts, at_once, rollouts, passes, set())
    theirs = RepeatSampler(range(prompts), rollouts, at_once, passes, seed=0)
    assert list(ours) == list(theirs)
    assert len(ours) == len(list(theirs))


@given(st.integers(1, 20), st.integers(1, 6))
def test_an_epoch_holds_every_prompt_and_batches_that_are_full(prompts: int, at_once: int) -> None:
    order = _order(prompts, at_once, 1, 1, set())
    taken = list(order)
    assert set(taken) == set(range(prompts))
    assert len(taken) == len(order)
    assert len(taken) % at_once == 0
    assert len(taken) < prompts + at_once


@given(st.integers(1, 20), st.integers(1, 6), st.sets(st.integers(0, 19)))
def test_what_taught_nothing_makes_room_for_others_in_one_epoch_and_then_returns(
    prompts: int, at_once: int, spent: set[int]
) -> None:
    spent = {number for number in spent if number < prompts}
    told = set(spent)
    order = _order(prompts, at_once, 2, 1, told)
    first, second = list(order), list(order)
    assert len(first) == len(second) == len(order)
    others = prompts - len(spent)
    if 2 * others >= len(first) // 2:
        assert not spent & set(first)
    else:  # so few teach anything that they would come again and again
        assert all(first.count(number) >= 4 for number in set(range(prompts)) - spent)
    assert set(second) == set(range(prompts))  # each again, those that were left out too

"""In which order prompts are taken: those that teach nothing make room for others.

Where all answers to a prompt are worth the same by mask, box and point, none of them is better
than the others, and their advantages are 0 or hang on form alone. Such a prompt is left out of
the next epoch; it comes back in the one after, as the model may have changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import torch
from torch.utils.data import Sampler

SPREAD: Final = 0.005
"""By how much the masks, boxes or points of answers differ at least if they are to teach."""


class PromptOrder(Sampler[int]):
    """Yields prompts as TRL wants them: each so often in a row as it has rollouts.

    Args:
        prompts: How many there are.
        at_once: How many make a batch; a last batch that is not full takes from another draw.
        rollouts: How often each is repeated in a row.
        passes: How often a batch is repeated.
        spent: Prompts that taught nothing; whoever scores rollouts adds to it, and each epoch
            empties it.
        seed: Of the order.
    """

    def __init__(
        self, prompts: int, at_once: int, rollouts: int, passes: int, spent: set[int], seed: int
    ) -> None:
        self._prompts = prompts
        self._at_once = at_once
        self._rollouts = rollouts
        self._passes = passes
        self._spent = spent
        self._drawn = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self._needed * self._rollouts * self._passes

    @property
    def _needed(self) -> int:
        return math.ceil(self._prompts / self._at_once) * self._at_once

    def __iter__(self) -> Iterator[int]:
        left_out = set(self._spent)
        self._spent.clear()
        order = [number for number in self._draw() if number not in left_out]
        # Others once more in the place of those left out; never one of them many times.
        order += [number for number in self._draw() if number not in left_out]
        while len(order) < self._needed:
            order += self._draw()
        for start in range(0, self._needed, self._at_once):
            batch = order[start : start + self._at_once]
            for _ in range(self._passes):
                for number in batch:
                    yield from [number] * self._rollouts

    def _draw(self) -> list[int]:
        drawn: list[int] = torch.randperm(self._prompts, generator=self._drawn).tolist()
        return drawn

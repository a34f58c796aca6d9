"""Asks a model again, with its thinking removed and with another's: see `faithfulness`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from PIL import Image

from segzero_ml.images import load_image
from segzero_ml.reasoner.prompts import normalise_request
from segzero_ml.reasoner.protocol import ReasonerOutput
from training_hooks.faithfulness import (
    Faithfulness,
    Probe,
    measure,
    names_each,
    prefix,
    swap_partners,
    thinking_of,
)
from training_hooks.snapshot_records import Example

MOST: Final = 24
"""Examples that are asked three times: enough to tell thinking that matters from show."""

_AT_ONCE: Final = 8
_LEAST_LETTERS: Final = 3


class GoesOn(Protocol):
    """A reasoner that can go on from the beginning of an answer."""

    def go_on(
        self, images: Sequence[Image.Image], requests: Sequence[str], begun: Sequence[str]
    ) -> list[ReasonerOutput]:
        """One output for each request; see `LocalReasoner.go_on`."""
        ...


def faithfulness(
    reasoner: GoesOn,
    examples: Sequence[Example],
    folder: Path,
    seed: int = 0,
    between: Callable[[], None] = lambda: None,
) -> Faithfulness:
    """Measure it on a few examples, the same ones for every model.

    A note counts as naming what was answered if it holds a word of the request.

    Args:
        reasoner: The model.
        examples: Held-out ones.
        folder: The snapshot's, where the images lie.
        seed: Decides which examples, and whose thinking takes whose place.
        between: Called before each batch; may raise to end.

    Raises:
        ModelError: The model has not enough memory.
        ImageError: An image cannot be read.
    """
    drawn = random.Random(seed)  # noqa: S311 - seeded, not secret
    chosen = drawn.sample(list(examples), min(MOST, len(examples)))
    own = _ask(reasoner, chosen, [""] * len(chosen), folder, between)
    thoughts = [thinking_of(one.text) for one in own]
    removed = _ask(reasoner, chosen, [prefix()] * len(chosen), folder, between)
    partners = swap_partners(thoughts, seed)
    others = [None if at is None else thoughts[at] for at in partners]
    swapped = _ask(reasoner, chosen, [prefix(text or "") for text in others], folder, between)
    probes = [
        Probe(
            example=example.request,
            frame=output.frame,
            text=output.text,
            removed=without.text,
            swapped=None if other is None else another.text,
        )
        for example, output, without, other, another in zip(
            chosen, own, removed, others, swapped, strict=True
        )
    ]
    return measure(probes, names_each(lambda probe: [_content_words(probe.example)]))


def _ask(
    reasoner: GoesOn,
    examples: Sequence[Example],
    begun: Sequence[str],
    folder: Path,
    between: Callable[[], None],
) -> list[ReasonerOutput]:
    outputs: list[ReasonerOutput] = []
    for start in range(0, len(examples), _AT_ONCE):
        between()
        batch = examples[start : start + _AT_ONCE]
        outputs += reasoner.go_on(
            [load_image(folder / one.image_file) for one in batch],
            [normalise_request(one.request) for one in batch],
            begun[start : start + _AT_ONCE],
        )
    return outputs


def _content_words(request: str) -> set[str]:
    return {word for word in request.split() if len(word) >= _LEAST_LETTERS}

"""How sure a reasoner is of its answer, from the probabilities of the tokens it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from segzero_ml.reasoner.prompts import geometric_mean

WEAKEST: Final = 3
"""Words that count: a chain of thoughts holds as far as its weakest links."""


def confidence_of(tokens: Sequence[tuple[str, float]]) -> float | None:
    """Confidence in an answer: the geometric mean of its four weakest links.

    These are the three words (tokens that are no number) of which the reasoner was least
    sure, thoughts included, and the mean of its numbers together: where thoughts go wrong, one
    word is at fault and hundreds are not; coordinates are never sure to the last digit.
    Chosen among eleven such rules for how well it ranks answers of the bundled reasoner by
    their true IoU; it needs nothing but probabilities, so it is the same for every reasoner.

    Args:
        tokens: Text and log probability of each token.

    Returns:
        In [0, 1]; None without tokens.
    """
    numbers = [chance for text, chance in tokens if text.strip().isdigit()]
    words = sorted(chance for text, chance in tokens if not text.strip().isdigit())
    links = words[:WEAKEST]
    if numbers:
        links.append(sum(numbers) / len(numbers))
    return geometric_mean(links)

r"""How far a mean difference could have come about by the choice of images.

Of pairs (one case, answered by two models) the mean difference is

$$ \bar d = \frac{\sum_i s_i}{\sum_i n_i} $$

with $s_i$ the sum of the differences of image $i$ and $n_i$ its number of cases. The images
are drawn anew with replacement, many times: several requests about one image are one piece
of evidence, not several. The interval holds the middle of the means so drawn. For few images
such an interval is too narrow by what Student's t knows better than the normal distribution;
it is widened by just that (the expanded percentile interval of T. Hesterberg, "What Teachers
Should Know About the Bootstrap", arXiv 1411.5279).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

_DRAWN_AT_ONCE: Final = 1_000_000
"""Images drawn in one go, in numbers, so that many images do not fill the memory."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference and the range it may lie in.

    Args:
        mean: The mean difference over all cases.
        low, high: The interval's ends.
        confidence: How often such intervals hold the truth, in (0, 1).
        images: Images that the cases are about.
        changed: Of them, those on which the two differ at all.
        resamples: How often the images were drawn anew.
        seed: Of the generator that drew them.
    """

    mean: float
    low: float
    high: float
    confidence: float
    images: int
    changed: int
    resamples: int
    seed: int


def paired_interval(
    differences: Mapping[str, Iterable[float]], confidence: float, resamples: int, seed: int
) -> Interval:
    """Interval of the mean difference, drawn by image.

    The order of the images and of the differences does not matter: the same differences and
    the same seed give the same interval, to the last bit.

    Args:
        differences: Of each image, one per case, finite; at least one image with a case.
        confidence: In (0, 1).
        resamples: How often the images are drawn anew, at least 1.
        seed: Of the generator.

    Returns:
        The interval. From one image nothing can be told: it is infinitely wide.
    """
    of_images = [sorted(differences[image]) for image in sorted(differences)]
    of_images = [values for values in of_images if values]
    sums = np.array([math.fsum(values) for values in of_images])
    counts = np.array([len(values) for values in of_images], dtype=np.float64)
    low, high = -math.inf, math.inf
    if sums.size > 1:
        means = _drawn_means(sums, counts, resamples, np.random.default_rng(seed))
        tail = _expanded_tail((1 - confidence) / 2, sums.size)
        low, high = (float(end) for end in np.quantile(means, [tail, 1 - tail]))
    return Interval(
        mean=math.fsum(sums) / math.fsum(counts),
        low=low,
        high=high,
        confidence=confidence,
        images=sums.size,
        changed=sum(any(value != 0 for value in values) for values in of_images),
        resamples=resamples,
        seed=seed,
    )


def _drawn_means(
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    resamples: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """The mean difference of each resample, shape (resamples,)."""
    means = np.empty(resamples)
    rows = max(1, _DRAWN_AT_ONCE // sums.size)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = generator.integers(sums.size, size=(stop - start, sums.size))
        means[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _expanded_tail(tail: float, images: int) -> float:
    """Share to cut off at each end, smaller than `tail`: the normal's at Student's quantile."""
    quantile = float(special.stdtrit(images - 1, tail))
    return float(special.ndtr(math.sqrt(images / (images - 1)) * quantile))

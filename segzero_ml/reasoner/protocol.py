"""What every reasoner is: images and requests in, texts with their frames out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from segzero_ml.geometry import Frame


@dataclass(frozen=True, slots=True)
class ReasonerOutput:
    """What a reasoner said about one image.

    Args:
        text: The text as generated, without end-of-text tokens.
        frame: The frame in which the text's coordinates are meant.
        confidence: In [0, 1], see `confidence.confidence_of`; 1 where a server does not
            report the probabilities of its tokens.
        tokens: How many tokens were generated.
        problem: Why there is no text, where one request of several failed; else None.
    """

    text: str
    frame: Frame
    confidence: float
    tokens: int
    problem: str | None = None


class Reasoner(Protocol):
    """A vision-language model that thinks about an image and points."""

    @property
    def version(self) -> str:
        """Identifies the weights: a SHA-256, a hub commit, or a server's model name."""
        ...

    def answer(
        self, images: Sequence[Image.Image], requests: Sequence[str]
    ) -> list[ReasonerOutput]:
        """Answer one request about each image.

        Args:
            images: Upright, any mode and size.
            requests: One normalised request for each image.

        Returns:
            One output for each request, in their order.

        Raises:
            ModelError: The model as a whole did not answer.
        """
        ...

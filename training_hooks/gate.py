"""Champion against challenger: the better model is promoted, a worse one never.

Both answered the same held-out examples, whose images no round is ever trained on. The
challenger is promoted only if every check passes:

1. There are enough held-out images, and enough of them answered differently: else learning
   cannot be told from luck.
2. The mean mask IoU rises, and beyond its paired bootstrap interval: the interval's lower end
   is above 0. Of equal models about (1 - confidence) / 2 pass this, 1 in 40 by default, and
   in simulations fewer than 1 in 25 even on few images.
3. It rises also among the answers that both models gave in a readable form: a gain that comes
   from form alone promotes nothing.
4. N-acc, the share of requests without a target that are answered with nothing, does not fall.
5. Mean mask IoU and N-acc do not fall on older corrections.
6. Nor on what is rehearsed: examples of what the base knew before any correction.

What was not there to be measured (no request without a target, nothing older) is said and
stops nothing. A truth that is rare and not among the held-out images cannot be seen here by
any rule: more held-out images can.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from segzero_ml.errors import ConfigError
from training_hooks.faithfulness import Faithfulness
from training_hooks.gate_figures import Case, Comparison, Figures, compare

__all__ = ["Case", "Check", "GateOptions", "Outcome", "Verdict", "judge", "too_few_images"]

_OLDER: Final = "Older corrections"
_REHEARSED: Final = "What is rehearsed"
_KNOWN: Final = (_OLDER, _REHEARSED)
_RISES: Final = "Mean mask IoU rises"

_ROUNDING: Final = 1e-9
"""A fall by less is one of floating-point numbers."""


Pair = tuple[Sequence[Case], Sequence[Case]]
"""What champion and challenger made of the same examples."""


@dataclass(frozen=True, slots=True)
class GateOptions:
    """What the gate asks for.

    Args:
        least_images: Held-out images, at least 2.
        least_changed: Images among them whose mask IoU changed at all. Six that change by
            chance all change for the better in 1 of 64 rounds.
        confidence: Of the interval, in (0, 1).
        challengers: Models among which the challenger was chosen by these very held-out
            cases, such as the checkpoints of its round, at least 1. The best of several is
            better by luck as well: the interval is widened for it (Bonferroni).
        n_acc_tolerance: Greatest fall of N-acc that passes, in [0, 1].
        older_tolerance: Greatest fall of the mean mask IoU on older corrections, and on what is
            rehearsed, in [0, 1].
        resamples: How often the images are drawn anew, at least 100.
        seed: Of the draws, 0 or more.

    Raises:
        ConfigError: A value is out of its range.
    """

    least_images: int = 20
    least_changed: int = 6
    confidence: float = 0.95
    challengers: int = 1
    n_acc_tolerance: float = 0.02
    older_tolerance: float = 0.02
    resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        fine = {
            "least_images": self.least_images >= 2,
            "least_changed": self.least_changed >= 1,
            "confidence": 0 < self.confidence < 1,
            "challengers": self.challengers >= 1,
            "n_acc_tolerance": 0 <= self.n_acc_tolerance <= 1,
            "older_tolerance": 0 <= self.older_tolerance <= 1,
            "resamples": self.resamples >= 100,
            "seed": self.seed >= 0,
        }
        wrong = [name for name, holds in fine.items() if not holds]
        if wrong:
            raise ConfigError(f"Options of the gate are out of range: {', '.join(wrong)}.")

    @property
    def adjusted_confidence(self) -> float:
        """Of the interval, for the best of `challengers`."""
        return 1 - (1 - self.confidence) / self.challengers


class Outcome(StrEnum):
    """What became of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the gate looked at.

    Args:
        name: In a few words.
        outcome: Only `FAILED` keeps the challenger out.
        text: What was found, in a sentence.
    """

    name: str
    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says.

    Args:
        checks: Everything looked at, in order.
        figures: What it was found from.
    """

    checks: tuple[Check, ...]
    figures: Figures

    @property
    def promote(self) -> bool:
        """Whether the challenger is to be served: no check failed."""
        return all(check.outcome is not Outcome.FAILED for check in self.checks)

    @property
    def only_forgets(self) -> bool:
        """Whether the challenger is better, and fails only as it lost what was known."""
        failed = self._failed
        return bool(failed) and all(name.startswith(_KNOWN) for name in failed)

    @property
    def only_learns_too_little(self) -> bool:
        """Whether the challenger lost nothing, and fails only as it is not clearly better."""
        return self._failed == [_RISES]

    @property
    def _failed(self) -> list[str]:
        return [check.name for check in self.checks if check.outcome is Outcome.FAILED]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why: the checks that failed, or when none did all that were made."""
        failed = tuple(check.text for check in self.checks if check.outcome is Outcome.FAILED)
        return failed or tuple(check.text for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; the ends of an infinite interval are None."""
        value: dict[str, Any] = _finite(
            {
                "promote": self.promote,
                "reasons": list(self.reasons),
                "checks": [asdict(check) for check in self.checks],
                "figures": asdict(self.figures),
            }
        )
        return value


def judge(
    champion: Sequence[Case],
    challenger: Sequence[Case],
    older: Pair = ((), ()),
    rehearsed: Pair = ((), ()),
    options: GateOptions | None = None,
    *,
    faithfulness: tuple[Faithfulness | None, Faithfulness | None] = (None, None),
) -> Verdict:
    """Decide whether the challenger takes the champion's place.

    The order of the cases does not matter; the same cases and options give the same verdict.

    Args:
        champion: On the held-out examples.
        challenger: On the same ones.
        older: Champion's and challenger's on older corrections; may be empty.
        rehearsed: The same on what was known before any correction.
        options: What is asked for.
        faithfulness: Champion's and challenger's, passed on to the figures.

    Returns:
        The verdict with its checks and figures.

    Raises:
        InputError: The two did not answer the same examples, or name one twice.
    """
    asked = options or GateOptions()
    how = (asked.adjusted_confidence, asked.resamples, asked.seed)
    held_out = compare(champion, challenger, *how)
    before = compare(older[0], older[1], *how)
    known = compare(rehearsed[0], rehearsed[1], *how)
    checks = (
        _enough(held_out, asked),
        *_rise(held_out, asked),
        _n_acc(held_out, asked),
        *_kept(_OLDER, before, asked),
        *_kept(_REHEARSED, known, asked),
    )
    return Verdict(checks, Figures(held_out, before, known, *faithfulness))


def too_few_images(images: int, options: GateOptions | None = None) -> str | None:
    """Say why nothing can pass with so few held-out images; None where there are enough.

    Args:
        images: With held-out cases. How many there will be is known before anything is trained.
        options: What is asked for.
    """
    least = (options or GateOptions()).least_images
    if images >= least:
        return None
    return (
        f"There are held-out cases of only {_counted(images, 'image')}; at least {least} are "
        "needed. Correct more images."
    )


def _enough(held_out: Comparison, options: GateOptions) -> Check:
    name = "Enough held-out images"
    images = held_out.champion.images
    if too_few := too_few_images(images, options):
        return Check(name, Outcome.FAILED, too_few)
    changed = held_out.gain.changed if held_out.gain else 0
    if changed < options.least_changed:
        text = (
            f"The masks changed on {changed} of {images} held-out images; on fewer than "
            f"{options.least_changed} learning cannot be told from luck."
        )
        return Check(name, Outcome.FAILED, text)
    cases = _counted(held_out.champion.cases, "case")
    text = f"{cases} of {images} held-out images; the masks changed on {changed} of them."
    return Check(name, Outcome.PASSED, text)


def _rise(held_out: Comparison, options: GateOptions) -> Iterator[Check]:
    """The rise of the mean mask IoU, beyond its interval and not by form alone."""
    gain = held_out.gain
    if gain is None:
        yield Check(_RISES, Outcome.NOT_MEASURED, "No case was held out.")
        return
    among = "" if options.challengers == 1 else f", for the best of {options.challengers}"
    text = (
        f"Mean mask IoU {held_out.champion.mean_iou:.3f} → {held_out.challenger.mean_iou:.3f}: "
        f"{gain.mean:+.3f}, {100 * options.confidence:g} % interval "
        f"{gain.low:+.3f} to {gain.high:+.3f}{among}"
    )
    rises = gain.low > 0
    text += "." if rises else "; the interval's lower end must be above 0."
    yield Check(_RISES, Outcome.PASSED if rises else Outcome.FAILED, text)
    if rises:
        yield _not_form_alone(held_out)


def _not_form_alone(held_out: Comparison) -> Check:
    name = "Not by form alone"
    if held_out.readable_gain is None:
        text = "There is no case on which both answers could be read."
        return Check(name, Outcome.NOT_MEASURED, text)
    text = (
        f"On the {_counted(held_out.readable_cases, 'case')} that both answered in a readable "
        f"form the mean mask IoU changes by {held_out.readable_gain:+.3f}"
    )
    if held_out.readable_gain > 0:
        return Check(name, Outcome.PASSED, f"{text}.")
    return Check(name, Outcome.FAILED, f"{text}; a gain on form alone promotes nothing.")


def _n_acc(found: Comparison, options: GateOptions, of: str = "") -> Check:
    name = f"{of}: N-acc does not fall" if of else "N-acc does not fall"
    before, after = found.champion.n_acc, found.challenger.n_acc
    if before is None or after is None:
        text = "Every held-out request has a target, so N-acc could not be measured."
        return Check(name, Outcome.NOT_MEASURED, f"{of}: {text}" if of else text)
    requests = _counted(found.champion.without_target, "request")
    text = f"N-acc {before:.3f} → {after:.3f} on {requests} without a target"
    text = f"{of}: {text}" if of else text
    return _not_fallen(name, text, before - after, options.n_acc_tolerance)


def _kept(of: str, found: Comparison, options: GateOptions) -> Iterator[Check]:
    """Whether what was right before still is."""
    name = f"{of}: mean mask IoU does not fall"
    if found.gain is None:
        yield Check(name, Outcome.NOT_MEASURED, f"{of}: there was nothing to compare on.")
        return
    text = (
        f"{of}: mean mask IoU {found.champion.mean_iou:.3f} → "
        f"{found.challenger.mean_iou:.3f} on {_counted(found.champion.cases, 'case')}"
    )
    yield _not_fallen(name, text, -found.gain.mean, options.older_tolerance)
    yield _n_acc(found, options, of)


def _not_fallen(name: str, text: str, fall: float, tolerance: float) -> Check:
    if fall > tolerance + _ROUNDING:
        text += f"; a fall of at most {tolerance:.3f} passes."
        return Check(name, Outcome.FAILED, text)
    return Check(name, Outcome.PASSED, f"{text}.")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _finite(value: Any) -> Any:
    """JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

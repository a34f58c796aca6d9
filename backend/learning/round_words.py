"""A round in a line, for people."""

from __future__ import annotations

from typing import Final

from backend.learning.round_state import Phase, RoundState
from training_hooks.snapshot_manifest import left_out_words

_WORDS: Final = {
    Phase.SNAPSHOT: "Collecting corrections",
    Phase.COLD_START: "Cold start",
    Phase.TRAINING: "Training",
    Phase.COMPARING: "Comparing",
    Phase.PROMOTING: "Promoting",
    Phase.WAITING: "Waiting to try again",
    Phase.PROMOTED: "Promoted",
    Phase.KEPT: "Champion kept",
    Phase.REFUSED: "Refused",
    Phase.CANCELLED: "Cancelled",
    Phase.FAILED: "Failed",
}


def one_line(state: RoundState) -> str:
    """Where a round is, with its newest figures."""
    words = [_WORDS[state.phase]]
    if state.phase is Phase.SNAPSHOT and state.steps:
        words.append(f"{state.step} of {state.steps}")
    elif state.steps and not state.phase.is_over:
        words.append(f"step {state.step} of {state.steps}")
    for name, label in (("reward", "reward"), ("reward/mask", "mask"), ("reward/box", "box")):
        if name in state.figures:
            words.append(f"{label} {state.figures[name]:.3f}")
    if state.held_out_iou is not None:
        words.append(f"held-out IoU {state.held_out_iou:.3f}")
    if state.champion_iou is not None:
        words.append(f"champion's {state.champion_iou:.3f}")
    if state.seconds_left and state.phase in (Phase.COLD_START, Phase.TRAINING):
        words.append(f"{state.seconds_left:.0f} s left")
    return ", ".join(words)


def with_left_out(text: str, state: RoundState) -> str:
    """What came of a round, and how many corrections it could not learn from."""
    if not state.left_out:
        return text
    return f"{text} Corrections left out: {left_out_words(state.left_out)}."

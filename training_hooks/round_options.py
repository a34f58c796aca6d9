"""How one round of learning is run; the defaults of each preset."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from segzero_ml.errors import ConfigError
from segzero_ml.rewards import RewardWeights

LANGUAGE_LAYERS: Final = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
"""The vision tower's MLP uses the same names: it is left out by the path."""

VISION_LAYERS: Final = r".*visual\.blocks.*\.(qkv|proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True, slots=True)
class RoundOptions:
    """How to run GRPO on a snapshot.

    Args:
        rollouts: Answers sampled for each prompt, G in the paper.
        prompts_per_step: Prompts whose rollouts make one step.
        rollouts_at_once: Rollouts that go through the model at once on the way back, on each
            GPU: what memory a step takes. A power of two is best.
        epochs: How often every prompt is seen.
        max_steps: Steps after which a round ends in any case; None for no such bound.
        learning_rate: Of the adapter.
        schedule: Whether the learning rate stays (`constant`) or falls to 0 (`linear`).
        scale_rewards: What advantages are divided by: the spread of rewards within the `group`
            of a prompt's rollouts, within the `batch`, or by `none`. Within the group, answers
            that hardly differ teach as much as those that do.
        loss: How tokens are summed up, as TRL names it: `dapo` counts each token alike, so long
            answers more; `grpo` each answer alike.
        rank: Of the adapter; its alpha is twice that.
        temperature: At which rollouts are sampled.
        kl: Weight of the divergence from the base model; beta in GRPO.
        most_kl: Divergence, in nats a token, beyond which a round ends early: the model is
            drifting away. None for no such bound; measured only where `kl` is not 0.
        max_new_tokens: Longest rollout; None for the preset's.
        mask_truncated: Whether rollouts that did not come to an end teach nothing. They are
            cut off by `max_new_tokens`; a model that rambles must learn from them.
        max_grad_norm: Longest gradient.
        train_vision: Whether the vision tower gets an adapter, too.
        save_every: Steps between two checkpoints.
        seed: Of the adapter's start and of every draw.
        weights: Of the parts of the reward.
        cold_start: How often the corrected answers are shown before the rewards begin; 0 for
            none.
        cold_start_rate: Learning rate of that.
        blend: Share of what was learnt that is kept in the end, in (0, 1]; see
            `training_hooks.blending`. Less forgets less; where a better model forgot too much, two
            thirds of that are tried as well, and half as much again where too little was learnt.
        rehearsal: What is mixed in besides the project's own data, so that the rest is not
            forgotten: `scenes`, the bundled domain; or the folder of a `requests.jsonl`; empty
            for nothing.
        rehearsal_share: Of that among the prompts of the round.
        rehearsal_held_out: Examples of it on which the gate asks for no fall.

    Raises:
        ConfigError: A value makes no sense.
    """

    rollouts: int = 8
    prompts_per_step: int = 8
    rollouts_at_once: int = 4
    epochs: float = 1.0
    max_steps: int | None = None
    learning_rate: float = 1e-5
    schedule: Literal["constant", "linear"] = "constant"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    loss: Literal["dapo", "grpo"] = "dapo"
    rank: int = 64
    temperature: float = 1.0
    kl: float = 0.01
    most_kl: float | None = 1.0
    max_new_tokens: int | None = None
    mask_truncated: bool = True
    max_grad_norm: float = 0.5
    train_vision: bool = False
    save_every: int = 25
    seed: int = 0
    weights: RewardWeights = field(default_factory=RewardWeights)
    cold_start: int = 0
    cold_start_rate: float = 1e-4
    blend: float = 1.0
    rehearsal: str = ""
    rehearsal_share: float = 0.3
    rehearsal_held_out: int = 100

    def __post_init__(self) -> None:
        if self.rollouts < 2:
            raise ConfigError("A round needs 2 rollouts a prompt at least: they are compared.")
        if (
            min(self.prompts_per_step, self.rank, self.save_every, self.rollouts_at_once) < 1
            or self.epochs <= 0
        ):
            raise ConfigError("Prompts a step, rank, epochs and save interval must be positive.")
        if not (self.learning_rate > 0 and self.temperature > 0 and self.kl >= 0):
            raise ConfigError("Learning rate and temperature must be positive, kl not negative.")
        if self.schedule not in ("constant", "linear"):
            raise ConfigError("The schedule must be constant or linear.")
        if self.scale_rewards not in ("group", "batch", "none"):
            raise ConfigError("Rewards are scaled within the group, the batch, or by none.")
        if self.loss not in ("dapo", "grpo"):
            raise ConfigError("The loss must be dapo or grpo.")
        if not 0 < self.blend <= 1:
            raise ConfigError("The share of what was learnt that is kept must be above 0, up to 1.")
        if not (0 <= self.rehearsal_share < 1 and self.rehearsal_held_out >= 0):
            raise ConfigError("The share of rehearsal must be from 0 to less than 1.")

    def rehearsed(self, lessons: int) -> int:
        """How many examples are mixed in with so many of the project's own."""
        if not self.rehearsal:
            return 0
        return round(lessons * self.rehearsal_share / (1 - self.rehearsal_share))

    @property
    def target_modules(self) -> str:
        """Which layers get an adapter, as a regular expression over their names."""
        if self.train_vision:
            return f"({LANGUAGE_LAYERS})|({VISION_LAYERS})"
        return LANGUAGE_LAYERS


def overridden(options: RoundOptions, changes: object) -> RoundOptions:
    """Options with some of their values changed.

    Args:
        options: What they are else.
        changes: Names of options with their values; of `weights`, any of its names.

    Raises:
        ConfigError: An option is not known, or its value makes no sense.
    """
    if not isinstance(changes, dict):
        raise ConfigError("The options of a round must be an object of names and values.")
    try:
        if "weights" in changes:
            weights = replace(options.weights, **changes["weights"])
            changes = {**changes, "weights": weights}
        return replace(options, **changes)
    except TypeError as error:  # of the wrong type, or of no option
        raise ConfigError(f"An option of a round cannot be used: {error}.") from error


_LARGE: Final = RoundOptions()
_BY_PRESET: Final = {
    # A model of a few million parameters needs, and bears, far larger steps.
    "tiny": replace(
        _LARGE,
        learning_rate=4e-4,
        schedule="linear",
        scale_rewards="batch",
        rank=32,
        rollouts_at_once=16,
        kl=0.01,
        epochs=4.0,
        max_steps=12,
        max_new_tokens=144,
        save_every=4,
        train_vision=True,
        cold_start=4,
        cold_start_rate=1e-3,
        blend=0.6,
        rehearsal="scenes",
        rehearsal_share=0.4,
        rehearsal_held_out=200,
    ),
}


def default_options(preset: str) -> RoundOptions:
    """The defaults for a preset: where it has none, those for 3 to 8 B on one 80 GB GPU."""
    return _BY_PRESET.get(preset, _LARGE)

"""Settings of the learning loop: when a round starts, and what it learns from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

from segzero_ml.errors import ConfigError


class TrainingSettings(BaseSettings):
    """Part of `backend.settings.Settings`, where they are read."""

    train_every_corrections: int = Field(
        default=50,
        ge=0,
        description="New corrections that start a round of training; 0: their number starts none. "
        "Accepted predictions do not count.",
    )
    train_min_corrections: int = Field(
        default=20,
        ge=1,
        description="Corrections without which no round runs, whoever asks for it.",
    )
    train_min_new: int = Field(
        default=5,
        ge=1,
        description="New corrections without which neither age nor schedule starts a round.",
    )
    train_max_age_h: float = Field(
        default=24.0,
        ge=0,
        allow_inf_nan=False,
        description="Hours that the oldest new correction waits at most before a round starts; "
        "0: age starts none.",
    )
    train_schedule: str | None = Field(
        default=None,
        description="When a round starts if there is something new, as cron writes it in local "
        "time: `0 2 * * *` is every night at two.",
    )
    train_quality_drop: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Fall of the accept rate, or of the mean edit IoU, that starts a round; 0: "
        "quality starts none.",
    )
    train_quality_window: int = Field(
        default=50,
        ge=1,
        le=1000,
        description="Annotations of shown predictions over which accept rate and edit IoU are "
        "taken.",
    )
    train_debounce_s: float = Field(
        default=300.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds after a round in which no other starts by itself.",
    )
    train_after_failure_s: float = Field(
        default=3600.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds after a failed round, or one that had too little held out, in which "
        "none starts by itself.",
    )
    train_held_out_share: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="Share of a project's images that is never trained on, to compare models on. "
        "The first round of a project fixes it for ever.",
    )
    train_held_out_most: int = Field(
        default=400,
        ge=1,
        description="Corrections held out at most; the same images as long as they are there.",
    )
    train_older_share: float = Field(
        default=0.3,
        ge=0,
        lt=1,
        description="Share of older corrections in a round; all of them while a round is small.",
    )
    train_accepted_share: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Greatest share of accepted predictions in a round.",
    )
    train_small_round: int = Field(
        default=2000,
        ge=0,
        description="Corrections up to which a round is small, and takes all there are; of more "
        "older ones each round draws others.",
    )

    train_threads: int | None = Field(
        default=None,
        ge=1,
        description="Threads of the processor that a round of training uses; without a number "
        "half of those there are, so that serving keeps answering.",
    )

    train_nice: int = Field(
        default=10,
        ge=0,
        le=19,
        description="How far a round yields to other processes, as `nice` counts it; 0 on a "
        "machine that only trains.",
    )
    train_launch: str | None = Field(
        default=None,
        description="Configuration of `accelerate launch` with which a round starts: `one-gpu`, "
        "`multi-gpu`, `zero2`, or a file of your own; without one `multi-gpu` where there "
        "is more than one GPU.",
    )
    train_keep_rounds: int = Field(
        default=3,
        ge=1,
        description="Rounds of a project whose checkpoints stay on disk; of older ones report, "
        "log and outcome do. Published versions are kept apart from these.",
    )
    train_rollouts: int | None = Field(
        default=None,
        ge=2,
        description="Answers sampled for each prompt.",
    )
    train_prompts_per_step: int | None = Field(
        default=None, ge=1, description="Prompts whose answers make one step."
    )
    train_rollouts_at_once: int | None = Field(
        default=None,
        ge=1,
        description="Answers that go through the model at once on each GPU: what memory a step "
        "takes.",
    )
    train_epochs: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="How often a round sees every prompt."
    )
    train_max_steps: int | None = Field(
        default=None, ge=1, description="Steps after which a round ends in any case."
    )
    train_learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="Learning rate of the adapter."
    )
    train_rate_schedule: Literal["constant", "linear"] | None = Field(
        default=None,
        description="Whether the learning rate stays (`constant`) or falls to 0 (`linear`).",
    )
    train_scale_rewards: Literal["group", "batch", "none"] | None = Field(
        default=None,
        description="What advantages are divided by: the spread of rewards within the `group` of "
        "a prompt's answers, within the `batch`, or by `none`.",
    )
    train_loss: Literal["dapo", "grpo"] | None = Field(
        default=None,
        description="How the tokens of answers are summed up: `dapo` counts each token alike, "
        "`grpo` each answer.",
    )
    train_rank: int | None = Field(
        default=None, ge=1, le=1024, description="Rank of the adapter; alpha is twice the rank."
    )
    train_temperature: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Temperature at which answers are sampled.",
    )
    train_kl: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Weight of the divergence from the base model.",
    )
    train_most_kl: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Divergence, in nats a token, beyond which a round ends early.",
    )
    train_max_new_tokens: int | None = Field(
        default=None, ge=1, description="Tokens of the longest sampled answer."
    )
    train_mask_truncated: bool | None = Field(
        default=None,
        description="Whether answers that were cut off at SEGZERO_TRAIN_MAX_NEW_TOKENS teach "
        "nothing.",
    )
    train_max_grad_norm: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Gradients are clipped to this norm."
    )
    train_vision: bool | None = Field(
        default=None, description="Whether the vision tower gets an adapter, too."
    )
    train_save_every: int | None = Field(
        default=None, ge=1, description="Steps between two checkpoints."
    )
    train_seed: int | None = Field(default=None, ge=0, description="Random seed of a round.")
    train_cold_start: int | None = Field(
        default=None,
        ge=0,
        description="Cold start: how often the corrected answers are shown before the rewards "
        "begin; 0 for none.",
    )
    train_cold_start_rate: float | None = Field(
        default=None, gt=0, le=1, description="Learning rate of the cold start."
    )
    train_blend: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of what was learnt that is kept in the end; less forgets less.",
    )
    train_rehearsal: str | None = Field(
        default=None,
        description="What a round mixes in so that the rest is not forgotten: `scenes`, the "
        "bundled domain, or the folder of a `requests.jsonl`.",
    )
    train_rehearsal_share: float | None = Field(
        default=None, ge=0, lt=1, description="Share of rehearsed prompts in a round."
    )
    train_rehearsal_held_out: int | None = Field(
        default=None, ge=0, description="Rehearsed examples on which the gate asks for no fall."
    )
    train_weight_mask: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Reward weight of the masks' IoU; must be the greatest.",
    )
    train_weight_box: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Reward weight of the boxes' IoU."
    )
    train_weight_point: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Reward weight of points inside the true masks.",
    )
    train_weight_format: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Reward weight of the answer's form."
    )
    train_weight_no_repetition: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Reward weight of not going round in circles.",
    )
    train_weight_length: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Reward weight of the answer's length."
    )

    @field_validator("train_schedule")
    @classmethod
    def _check_schedule(cls, value: str | None) -> str | None:
        from training_hooks.schedule import check_schedule

        if value is not None:
            try:
                check_schedule(value)
            except ConfigError as error:
                raise ValueError(f"{error}".rstrip(".")) from error
        return value

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.train_older_share + self.train_accepted_share >= 1:
            raise ValueError(
                "SEGZERO_TRAIN_OLDER_SHARE and SEGZERO_TRAIN_ACCEPTED_SHARE must sum to less "
                "than 1, so that something is left for new corrections"
            )
        return self

"""Settings of the learning loop: when a round starts, and what it learns from."""

from __future__ import annotations

from typing import Self

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
        description="Annotations of shown predictions over which both are taken.",
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
        description="The same after a round that failed.",
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
        default=200,
        ge=0,
        description="Corrections up to which a round is small, and takes all there are.",
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

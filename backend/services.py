"""What the endpoints work with."""

from __future__ import annotations

from dataclasses import dataclass

from backend.access import Guard
from backend.champions import Champions
from backend.connect.follow import VersionFollower
from backend.image_cache import Fetches
from backend.intake.receiver import Intake
from backend.learning.trigger import Triggers
from backend.metrics import Metrics
from backend.model_thread import ModelThread
from backend.predictor import Predictor
from backend.reconcile.schedule import Schedule
from backend.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """One app's parts; the app holds them as `app.state.services`."""

    settings: Settings
    guard: Guard
    metrics: Metrics
    model: ModelThread
    champions: Champions
    predictor: Predictor
    fetcher: Fetches
    intake: Intake
    schedule: Schedule
    triggers: Triggers
    follower: VersionFollower

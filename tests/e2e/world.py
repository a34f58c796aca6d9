"""What the end-to-end tests talk about: no fixtures, no tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend.connect import BackendAccess, ConnectReport
from backend.demo.processes import Child
from backend.demo.servers import Login
from backend.label_studio_models import Task
from segzero_ml.datasets import Sample


@dataclass(frozen=True, slots=True)
class Studio:
    """A running Label Studio."""

    url: str
    login: Login
    data: Path


@dataclass(frozen=True, slots=True)
class Backend:
    """A running backend, how Label Studio reaches it, and its data folder."""

    child: Child
    access: BackendAccess
    data: Path

    @property
    def environment(self) -> dict[str, str]:
        """What `segzero connect` needs to know of it."""
        password, secret = self.access.password, self.access.webhook_secret
        if self.access.user is None or password is None or secret is None:
            raise ValueError("the backend was started without a login")
        return {
            "SEGZERO_USER": self.access.user,
            "SEGZERO_PASSWORD": password.get_secret_value(),
            "SEGZERO_WEBHOOK_SECRET": secret.get_secret_value(),
        }


@dataclass(frozen=True, slots=True)
class Prepared:
    """A project whose tasks Label Studio has retrieved predictions for.

    Args:
        project_id: The project.
        samples: What the tasks were made of, in their order.
        tasks: The tasks with their predictions, as read back.
        report: What connecting said.
    """

    project_id: int
    samples: tuple[Sample, ...]
    tasks: tuple[Task, ...]
    report: ConnectReport

"""What the ingest job asks of Label Studio: what an event does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx

from backend.label_studio_http import Api
from backend.label_studio_listing import MOST_BYTES, Listing
from backend.label_studio_models import Project
from backend.settings import Settings
from segzero_ml.errors import ConfigError

_TIMEOUT_S: Final = 30.0


class Studio:
    """Label Studio as the settings name it, or none. Use it as a context manager.

    Its calls raise what those of `backend.label_studio.LabelStudio` raise.

    Args:
        settings: Its address and token.
        transport: How requests travel; None for the network.
    """

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        url, token = settings.label_studio_url, settings.label_studio_token
        self._api = Api(url, token, _TIMEOUT_S, transport) if url and token else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._api is not None:
            self._api.close()

    def predictions(self, task: int) -> Sequence[Mapping[str, Any]]:
        """All predictions of a task; none where there is no address and token to ask."""
        if self._api is None:
            return ()
        return self._api.read(
            list[dict[str, Any]],
            "GET",
            "/api/predictions/",
            params={"task": task},
            most_bytes=MOST_BYTES,
        )

    def label_config(self, project: int) -> str:
        """The labelling config of a project.

        Raises:
            ConfigError: There is no address and token to ask.
        """
        return self._needed().read(Project, "GET", f"/api/projects/{project}/").label_config

    def task(self, project: int, task: int) -> Mapping[str, Any] | None:
        """A task with its annotations and predictions; None if it is not in the project.

        Raises:
            ConfigError: There is no address and token to ask.
        """
        # Not by its own address: that would have Label Studio ask this backend to predict.
        page = Listing(self._needed()).task_page(project, task - 1, 1, calls_backend=False)
        return next((one for one in page.tasks if one["id"] == task), None)

    def _needed(self) -> Api:
        if self._api is None:
            raise ConfigError(
                "The event is too large to travel through the queue, and there is no Label "
                "Studio to ask.",
                "Set SEGZERO_LABEL_STUDIO_URL and SEGZERO_LABEL_STUDIO_TOKEN, also for the "
                "workers, then run segzero retry.",
            )
        return self._api

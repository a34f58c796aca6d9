"""Has Label Studio's projects follow the version that answers for them.

Each promotion and each rollback changes the version that the backend reports. A project that
shows the predictions of the backend is then set to the new one, as `segzero connect` did it
with the first; one that somebody has set to other predictions is left alone. Where Label Studio
is away, it is told later: what serves does not hang on it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final

from backend.connect.address import BackendAccess
from backend.connect.steps import Session, ensure_version
from backend.label_studio import LabelStudio, LabelStudioApiError
from backend.reconcile.projects import open_label_studio
from backend.settings import Settings
from segzero_ml.errors import LabelStudioError, LabelStudioUnreachableError, SegZeroError

_log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 3.0
_TIMEOUT_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 60.0
_STOP_S: Final = 2.0
_SERVER_ERROR: Final = 500


class VersionFollower:
    """A thread that tells Label Studio of the versions that answer; several backends may.

    Args:
        settings: Where Label Studio is, and the backend's login.
        projects: Gives the projects that have versions of their own.
        version_of: Gives the version that answers for a project; None while nobody knows.
        refresh: Called with a project and its new version, where stale predictions are to be
            made anew.
        open_client: Opens Label Studio, with the longest wait for an answer.
        every_s: Seconds between two looks.
    """

    def __init__(
        self,
        settings: Settings,
        projects: Callable[[], Iterable[int]],
        version_of: Callable[[int], str | None],
        refresh: Callable[[int, str], object] = lambda project, version: None,
        *,
        open_client: Callable[[Settings, float], LabelStudio] = open_label_studio,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._settings = settings
        self._projects = projects
        self._version_of = version_of
        self._refresh = refresh
        self._open = open_client
        self._every_s = every_s
        self._told: dict[int, str] = {}
        self._missed: set[tuple[int, str]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="follow-versions", daemon=True)

    def start(self) -> None:
        """Begin; does nothing where there is no Label Studio to tell."""
        settings = self._settings
        if settings.label_studio_url is not None and settings.label_studio_token is not None:
            self._thread.start()

    def stop(self) -> None:
        """End; a call that is under way may outlive this by its time limit."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def look(self) -> None:
        """Tell Label Studio what it does not know yet.

        A project that it refuses, one that was deleted say, keeps no other from being told.

        Raises:
            SegZeroError: Label Studio is away, broken, or does not take the token; what it was
                told stays told.
        """
        news: dict[int, str] = {}
        for project in self._projects():
            version = self._version_of(project)
            if version is not None and self._told.get(project) != version:
                news[project] = version
        if not news:
            return
        failure: LabelStudioError | None = None
        with self._open(self._settings, _TIMEOUT_S) as client:
            for project, version in news.items():
                try:
                    self._tell(client, project, version)
                except LabelStudioUnreachableError:
                    raise
                except LabelStudioError as error:
                    if isinstance(error, LabelStudioApiError) and error.status < _SERVER_ERROR:
                        self._say_once(project, version, str(error))
                    else:
                        failure = error
        if failure is not None:
            raise failure

    def _tell(self, client: LabelStudio, project: int, version: str) -> None:
        ours = [row for row in client.ml_backends(project) if row.model_version == version]
        shown = client.project(project).model_version or ""
        # The backend's title, which is the version before, or any version of the same base.
        base = version.partition("+")[0]
        follows = shown in {"", *(row.title for row in ours)} or shown.partition("+")[0] == base
        if not ours:  # not connected, or Label Studio could not ask it: looked at again
            self._say_once(project, version, "it has no backend that reports this version")
            return
        if not follows:
            _log.info("Project %d shows %s, and is left so", project, shown[:100])
        else:
            settings, row = self._settings, ours[0]
            access = BackendAccess(row.url, settings.user, settings.password)
            session = Session(client, project, access)
            ensure_version(session, row)
            if session.done:
                _log.info("Project %d of Label Studio was set to %s", project, version)
                if settings.refresh_after_promotion:
                    self._refresh(project, version)
        self._told[project] = version

    def _say_once(self, project: int, version: str, why: str) -> None:
        if (project, version) not in self._missed:
            _log.info("Project %d does not follow to %s yet: %s", project, version, why)
        self._missed.add((project, version))

    def _work(self) -> None:
        pause, told = self._every_s, False
        while not self._stop.wait(pause):
            try:
                self.look()
            except SegZeroError as error:
                if not told:
                    _log.warning("Label Studio does not know the version yet: %s", error)
                pause, told = min(2 * pause, _LONGEST_PAUSE_S), True
            else:
                pause, told = self._every_s, False

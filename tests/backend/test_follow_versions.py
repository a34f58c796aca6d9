"""Label Studio's project follows the version that answers, and not against anybody's will."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx
import pytest

from backend.connect import BackendAccess, connect
from backend.connect.follow import VersionFollower
from backend.label_studio import LabelStudio
from backend.settings import Settings, load_settings
from backend.templates import labelling_config
from segzero_ml.errors import LabelStudioError
from tests.backend.studio import TOKEN, URL, FakeStudio, refusal

BASE = "tiny@1f3a5b7c"
FIRST, SECOND = f"{BASE}+v1-aaaaaaaa", f"{BASE}+v2-bbbbbbbb"


Answer = Callable[[httpx.Request], httpx.Response]


class World:
    """A connected project, and a backend whose version can be changed."""

    def __init__(self) -> None:
        self.studio = FakeStudio(labelling_config())
        connect(self.studio.client(), 7, BackendAccess("http://127.0.0.1:9090"))
        self.version: str | None = BASE
        self.refreshed: list[tuple[int, str]] = []
        self.studio.changes.clear()

    def serve(self, version: str) -> None:
        self.version = version
        self.studio.versions = [version]

    def follower(
        self, *, answer: Answer | None = None, projects: Sequence[int] = (7,), **given: object
    ) -> VersionFollower:
        def open_client(_: Settings, __: float) -> LabelStudio:
            return LabelStudio(URL, TOKEN, transport=httpx.MockTransport(answer or self.studio))

        return VersionFollower(
            load_settings(label_studio_url=URL, label_studio_token=TOKEN, **given),
            lambda: projects,
            lambda _: self.version,
            lambda project, version: self.refreshed.append((project, version)),
            open_client=open_client,
        )

    @property
    def shown(self) -> tuple[str, str]:
        return self.studio.project["model_version"], self.studio.rows[0]["title"]


@pytest.fixture
def here() -> World:
    return World()


def test_a_promotion_and_a_rollback_become_the_projects_version(here: World) -> None:
    follower = here.follower()
    for version in (FIRST, SECOND, FIRST, BASE):
        here.serve(version)
        follower.look()
        assert here.shown == (version, version)


def test_what_label_studio_knows_is_not_told_again(here: World) -> None:
    follower = here.follower()
    here.serve(FIRST)
    follower.look()
    here.studio.changes.clear()
    follower.look()
    here.follower().look()  # another backend, or this one after its next start
    assert here.studio.changes == []


def test_a_project_that_shows_other_predictions_is_left_alone(here: World) -> None:
    here.studio.project["model_version"] = "imported last week"
    here.serve(FIRST)
    here.follower().look()
    assert here.studio.changes == []
    assert here.shown[0] == "imported last week"


def test_a_label_studio_that_is_away_is_told_later(here: World) -> None:
    follower = here.follower()
    here.serve(FIRST)
    here.studio.fails_at = ".*projects/7.*"
    with pytest.raises(LabelStudioError):
        follower.look()
    here.studio.fails_at = None
    follower.look()
    assert here.shown == (FIRST, FIRST)


def test_a_backend_that_label_studio_could_not_ask_is_looked_at_again(here: World) -> None:
    follower = here.follower()
    here.version = FIRST  # Label Studio still holds the version before
    follower.look()
    assert here.studio.changes == []
    here.serve(FIRST)
    follower.look()
    assert here.shown == (FIRST, FIRST)


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_project_that_label_studio_refuses_keeps_no_other_from_following(
    here: World, status: int
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.params.get("project") == "3" or request.url.path == "/api/projects/3":
            return refusal(status, "There is no such project.")
        return here.studio(request)

    follower = here.follower(answer=answer, projects=(3, 7))
    for version in (FIRST, SECOND):
        here.serve(version)
        if status == 404:
            follower.look()
        else:  # may be true of all of Label Studio: looked at again after a pause
            with pytest.raises(LabelStudioError, match="no such project"):
                follower.look()
        assert here.shown == (version, version)


def test_a_label_studio_that_is_away_is_asked_once_and_not_for_each_project(here: World) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raise httpx.ConnectError("refused")

    here.serve(FIRST)
    with pytest.raises(LabelStudioError):
        here.follower(answer=answer, projects=(3, 7)).look()
    assert len(asked) == 1


def test_a_model_that_loads_is_waited_for(here: World) -> None:
    here.version = None
    here.follower().look()
    assert here.studio.changes == []


@pytest.mark.parametrize(("wanted", "expected"), [(False, []), (True, [(7, FIRST)])])
def test_stale_predictions_are_made_anew_where_that_is_wanted(
    here: World, wanted: bool, expected: list[tuple[int, str]]
) -> None:
    follower = here.follower(refresh_after_promotion=wanted)
    here.serve(FIRST)
    follower.look()
    follower.look()
    assert here.refreshed == expected

"""Connecting: what is registered, what is left alone, and what failures leave behind."""

from __future__ import annotations

import httpx
import pytest
from pydantic import SecretStr

from backend.app import create_app
from backend.connect import BackendAccess, check_backend_url, connect
from backend.connect.steps import LOADING, Session, ensure_version
from backend.label_studio import LabelStudio
from backend.label_studio_models import MlBackend
from backend.model_thread import Predicts
from backend.services import Services
from backend.settings import load_settings
from backend.templates import labelling_config
from segzero_ml.errors import (
    ConfigError,
    LabellingConfigError,
    LabelStudioAuthError,
    LabelStudioError,
    LabelStudioUnreachableError,
)
from tests.backend.studio import URL, FakeStudio

BACKEND = "http://127.0.0.1:9090"
OPEN = BackendAccess(BACKEND)
GUARDED = BackendAccess(BACKEND, "ls", SecretStr("pass"), SecretStr("secret"))


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(labelling_config())


def test_backend_webhook_and_version_are_made(studio: FakeStudio) -> None:
    report = connect(studio.client(), 7, GUARDED)
    [row] = studio.rows
    assert row["url"] == BACKEND
    assert row["is_interactive"] is True
    assert (row["auth_method"], row["basic_auth_user"]) == ("BASIC_AUTH", "ls")
    [webhook] = studio.webhooks
    assert webhook["url"] == f"{BACKEND}/webhook"
    assert webhook["headers"] == {"X-SegZero-Secret": "secret"}
    assert studio.project["model_version"] == "tiny@1f3a5b7c"
    assert report.model_version == "tiny@1f3a5b7c"
    assert report.page == f"{URL}/projects/7"
    assert len(report.done) == 3
    assert report.todo == ()


def test_a_second_run_changes_nothing_and_says_so(studio: FakeStudio) -> None:
    connect(studio.client(), 7, GUARDED)
    studio.changes.clear()
    report = connect(studio.client(), 7, GUARDED)
    assert studio.changes == []
    assert report.done == ()
    assert len(report.unchanged) == 3


def test_a_trailing_slash_is_not_another_backend(studio: FakeStudio) -> None:
    connect(studio.client(), 7, OPEN)
    report = connect(studio.client(), 7, BackendAccess(f"{BACKEND}/"))
    assert report.done == ()
    assert len(studio.rows) == 1


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(studio: FakeStudio) -> None:
    report = connect(studio.client(), 7, GUARDED, dry_run=True)
    assert studio.changes == []
    assert [line.partition(": ")[2] for line in report.done] == [
        "to be made",
        "to be registered",
        "to be set to what the backend reports",
    ]


def test_no_report_shows_a_password_or_a_secret(studio: FakeStudio) -> None:
    access = BackendAccess(BACKEND, "ls", SecretStr("pa55"), SecretStr("s3cr3t"))
    report = str(connect(studio.client(), 7, access))
    assert "pa55" not in report
    assert "s3cr3t" not in report


def test_the_webhook_that_label_studio_makes_by_itself_gets_the_secret(studio: FakeStudio) -> None:
    connect(studio.client(), 7, OPEN)
    connect(studio.client(), 7, GUARDED)
    [webhook] = studio.webhooks
    assert webhook["headers"] == {"X-SegZero-Secret": "secret"}


def test_correcting_a_webhook_keeps_what_others_put_there(studio: FakeStudio) -> None:
    connect(studio.client(), 7, OPEN)
    studio.webhooks[0] |= {"headers": {"X-Other": "1"}, "actions": ["ANNOTATION_CREATED"]}
    studio.webhooks[0]["is_active"] = False
    connect(studio.client(), 7, GUARDED)
    [webhook] = studio.webhooks
    assert webhook["headers"] == {"X-Other": "1", "X-SegZero-Secret": "secret"}
    assert webhook["actions"] == ["ANNOTATION_CREATED"]
    assert webhook["is_active"] is True


def test_a_new_login_replaces_the_old_one(studio: FakeStudio) -> None:
    connect(studio.client(), 7, OPEN)
    studio.login = ("ls", "pass")
    report = connect(studio.client(), 7, GUARDED)
    assert studio.rows[0]["basic_auth_pass"] == "pass"
    assert any("ML backend" in line and "corrected" in line for line in report.done)


def test_a_new_version_of_the_model_becomes_the_projects(studio: FakeStudio) -> None:
    connect(studio.client(), 7, OPEN)
    studio.versions = ["tiny@99999999"]
    report = connect(studio.client(), 7, OPEN)
    assert studio.project["model_version"] == "tiny@99999999"
    assert report.done == ("Model version of the project, tiny@99999999: set",)


def test_a_project_with_other_predictions_gets_the_backends_version(studio: FakeStudio) -> None:
    studio.project["model_version"] = "imported"
    connect(studio.client(), 7, OPEN)
    assert studio.project["model_version"] == "tiny@1f3a5b7c"


def test_a_loading_model_is_waited_for(studio: FakeStudio) -> None:
    studio.versions = [f"tiny {LOADING}"] * 3 + ["tiny@1f3a5b7c"]
    client = studio.client()
    rested: list[float] = []
    session = Session(client, 7, OPEN, wait_s=60, sleep=rested.append)
    row = client.add_ml_backend({"url": BACKEND, "title": "SegZero"})
    assert ensure_version(session, row) == "tiny@1f3a5b7c"
    assert rested
    assert session.todo == []


def test_a_model_that_loads_for_longer_is_left_to_the_user(studio: FakeStudio) -> None:
    studio.versions = [f"tiny {LOADING}"]
    report = connect(studio.client(), 7, GUARDED)
    assert any("run this again" in line for line in report.todo)
    assert studio.project["model_version"] == "SegZero"


def test_the_server_says_in_its_version_that_it_loads() -> None:
    def load() -> Predicts:
        raise AssertionError("not started")

    app = create_app(load_settings(), load_pipeline=load)
    services: Services = app.state.services
    assert services.predictor.model_version.endswith(LOADING)


def test_a_backend_without_a_version_is_refused_and_removed_again(studio: FakeStudio) -> None:
    studio.versions = [""]
    with pytest.raises(LabelStudioError, match="reports no model version"):
        connect(studio.client(), 7, OPEN)
    assert (studio.rows, studio.webhooks) == ([], [])


def test_a_config_without_a_brush_is_refused_before_any_change(studio: FakeStudio) -> None:
    studio.project["label_config"] = '<View><Image name="image" value="$image"/></View>'
    with pytest.raises(LabellingConfigError, match="no BrushLabels") as caught:
        connect(studio.client(), 7, OPEN)
    assert "<BrushLabels" in caught.value.remedy
    assert studio.changes == []


def test_weak_spots_of_the_config_are_named(studio: FakeStudio) -> None:
    studio.project["label_config"] = labelling_config().replace('smart="false"', "")
    report = connect(studio.client(), 7, GUARDED)
    assert any("notes" in line for line in report.todo)


def test_a_missing_project_is_named(studio: FakeStudio) -> None:
    with pytest.raises(LabelStudioError, match="no project 8") as caught:
        connect(studio.client(), 8, OPEN)
    assert "/projects/NUMBER" in caught.value.remedy


def test_a_wrong_token_is_refused(studio: FakeStudio) -> None:
    client = LabelStudio(URL, "wrong", transport=httpx.MockTransport(studio))
    with pytest.raises(LabelStudioAuthError, match="does not accept the token"):
        connect(client, 7, OPEN)


@pytest.mark.parametrize(("backends", "webhooks"), [(True, True), (False, True), (True, False)])
def test_a_blocked_address_names_both_switches_and_leaves_nothing(
    studio: FakeStudio, backends: bool, webhooks: bool
) -> None:
    studio.blocks_backends, studio.blocks_webhooks = backends, webhooks
    with pytest.raises(LabelStudioError, match="private network") as caught:
        connect(studio.client(), 7, GUARDED)
    assert "ML_BLOCK_LOCAL_IP=false" in caught.value.remedy
    assert "SSRF_PROTECTION_ENABLED=false" in caught.value.remedy
    assert (studio.rows, studio.webhooks) == ([], [])


def test_a_backend_that_is_down_leaves_nothing_behind(studio: FakeStudio) -> None:
    studio.backend_is_up = False
    with pytest.raises(LabelStudioError, match=f"cannot reach the backend at {BACKEND}") as caught:
        connect(studio.client(), 7, OPEN)
    assert "segzero serve" in caught.value.remedy
    assert (studio.rows, studio.webhooks) == ([], [])


@pytest.mark.parametrize(
    "words",
    [
        "Able to connect to ML Server, but authentication parameters were either not provided",
        f"Successfully connected to {BACKEND} but it doesn't look like a valid ML backend. "
        f"Reason: 401 Client Error: Unauthorized for url: {BACKEND}/setup.",
    ],
)
def test_a_wrong_login_names_the_settings(studio: FakeStudio, words: str) -> None:
    studio.login, studio.login_refusal = ("ls", "another"), words
    with pytest.raises(LabelStudioError, match="does not accept the login") as caught:
        connect(studio.client(), 7, GUARDED)
    assert "SEGZERO_PASSWORD" in caught.value.remedy


def test_a_name_that_the_backend_is_not_called_by_names_the_setting(studio: FakeStudio) -> None:
    studio.login, studio.login_refusal = (
        ("ls", "another"),
        f"Successfully connected to {BACKEND} but it doesn't look like a valid ML backend. "
        f"Reason: 421 Client Error: Misdirected Request for url: {BACKEND}/setup.",
    )
    with pytest.raises(LabelStudioError, match="must not be called by this name") as caught:
        connect(studio.client(), 7, OPEN)
    assert "SEGZERO_ALLOWED_HOSTS" in caught.value.remedy


@pytest.mark.parametrize("call", ["PATCH /api/ml/.*", "PATCH /api/projects/.*", "POST /api/ml/"])
def test_a_failure_half_way_removes_what_was_made(studio: FakeStudio, call: str) -> None:
    studio.project["model_version"] = "imported"
    studio.fails_at = call
    with pytest.raises(LabelStudioError, match="Internal error"):
        connect(studio.client(), 7, OPEN)
    assert (studio.rows, studio.webhooks) == ([], [])


def test_a_failure_keeps_what_was_there_before(studio: FakeStudio) -> None:
    connect(studio.client(), 7, OPEN)
    studio.versions, studio.fails_at = ["new"], "PATCH /api/ml/.*"
    with pytest.raises(LabelStudioError):
        connect(studio.client(), 7, OPEN)
    assert (len(studio.rows), len(studio.webhooks)) == (1, 1)


def test_what_cannot_be_removed_again_is_named(studio: FakeStudio) -> None:
    studio.fails_at = "(PATCH|DELETE) /api/ml/.*"
    with pytest.raises(LabelStudioError) as caught:
        connect(studio.client(), 7, OPEN)
    assert f"Remove by hand what could not be removed again: the ML backend {BACKEND}." in str(
        caught.value
    )


def test_label_studio_going_down_half_way_is_said_plainly(studio: FakeStudio) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            raise httpx.ConnectError("refused")
        return studio(request)

    client = LabelStudio(
        URL, "0123456789abcdef0123456789abcdef01234567", transport=httpx.MockTransport(handler)
    )
    with pytest.raises(LabelStudioUnreachableError):
        connect(client, 7, OPEN)


def test_an_older_backend_that_answers_instead_is_pointed_out(studio: FakeStudio) -> None:
    studio.rows.append({"id": 1, "url": "http://10.0.0.5:9090", "title": "old"})
    report = connect(studio.client(), 7, GUARDED)
    assert any("http://10.0.0.5:9090" in line for line in report.todo)


def test_a_younger_backend_is_no_concern(studio: FakeStudio) -> None:
    connect(studio.client(), 7, GUARDED)
    studio.rows.append({"id": 99, "url": "http://10.0.0.5:9090", "title": "new"})
    assert connect(studio.client(), 7, GUARDED).todo == ()


def test_hidden_predictions_and_a_missing_secret_are_pointed_out(studio: FakeStudio) -> None:
    studio.project["show_collab_predictions"] = False
    report = connect(studio.client(), 7, OPEN)
    assert any("SEGZERO_WEBHOOK_SECRET" in line for line in report.todo)
    assert any("prelabel" in line for line in report.todo)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9090",
        "http://localhost:9090",
        "http://[::1]:9090",
        "https://segzero.internal",
        "http://10.0.0.5/segzero",
    ],
)
def test_addresses_that_label_studio_can_send_webhooks_to_pass(url: str) -> None:
    assert check_backend_url(url + "/") == url


@pytest.mark.parametrize("url", ["http://backend:9090", "https://segzero"])
def test_a_host_without_a_dot_is_refused_with_a_remedy(url: str) -> None:
    with pytest.raises(ConfigError, match="drop the webhooks") as caught:
        check_backend_url(url)
    assert "dot" in caught.value.remedy


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:9090", "ftp://a.b", "http://", "http://a.b:x", "http://u:p@a.b"]
)
def test_what_is_no_plain_http_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        check_backend_url(url)


def test_a_row_that_vanishes_while_its_model_loads_does_not_hang(studio: FakeStudio) -> None:
    session = Session(studio.client(), 7, OPEN, wait_s=4, sleep=lambda _: None)
    row = MlBackend(id=5, url=BACKEND, title="SegZero", model_version=f"tiny {LOADING}")
    assert ensure_version(session, row) == f"tiny {LOADING}"
    assert len(session.todo) == 1

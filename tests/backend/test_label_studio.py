"""The API client against recorded shapes of Label Studio's answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from backend.label_studio import LabelStudio, LabelStudioApiError
from segzero_ml.errors import (
    ConfigError,
    LabelStudioAuthError,
    LabelStudioError,
    LabelStudioUnreachableError,
)

URL = "http://studio.example:8080"
TOKEN = "0123456789abcdef0123456789abcdef01234567"

Handler = Callable[[httpx.Request], httpx.Response]


def client_for(handler: Handler, url: str = URL) -> LabelStudio:
    return LabelStudio(url, TOKEN, transport=httpx.MockTransport(handler))


def answering(status: int, body: object, headers: dict[str, str] | None = None) -> LabelStudio:
    return client_for(lambda request: httpx.Response(status, json=body, headers=headers))


def refusal(status: int, detail: str, **more: object) -> dict[str, object]:
    return {"id": "1", "status_code": status, "version": "1.23.2", "detail": detail, **more}


def test_a_project_is_read_with_what_is_needed_of_it() -> None:
    body = {"id": 7, "title": "Shelf", "label_config": "<View/>", "model_version": None, "x": 1}
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=body)

    with client_for(handler, URL + "/studio/") as client:
        project = client.project(7)
    assert (project.id, project.title, project.model_version) == (7, "Shelf", None)
    assert str(seen[0].url) == f"{URL}/studio/api/projects/7/"
    assert seen[0].headers["Authorization"] == f"Token {TOKEN}"


@pytest.mark.parametrize("token", ["", "two words", "tok\u00e9n"])
def test_a_malformed_token_is_refused_before_any_call(token: str) -> None:
    with pytest.raises(ConfigError, match="token is empty or malformed"):
        LabelStudio(URL, token)


def test_a_wrong_token_is_said_to_be_wrong_with_a_remedy() -> None:
    with pytest.raises(LabelStudioAuthError, match="does not accept the token") as caught:
        answering(401, refusal(401, "Invalid token.")).whoami()
    assert "Personal Access Token" in caught.value.remedy
    assert TOKEN not in str(caught.value)


def test_a_user_without_leave_is_told_so() -> None:
    body = refusal(403, "You do not have permission to perform this action.")
    with pytest.raises(LabelStudioAuthError, match="may not do this: GET /api/projects/7/"):
        answering(403, body).project(7)


def test_a_blocked_address_is_not_mistaken_for_a_missing_permission() -> None:
    body = refusal(403, "URL resolves to a reserved network address (block: 127.0.0.0/8)")
    with pytest.raises(LabelStudioApiError) as caught:
        answering(403, body).add_ml_backend({"url": "http://127.0.0.1:9090"})
    assert caught.value.is_blocked_address


def test_a_refusal_gives_the_reason_without_markup() -> None:
    body = refusal(
        400,
        "Validation error",
        validation_errors={"non_field_errors": ["Can't  connect. <a href='x'>Learn more</a>."]},
    )
    with pytest.raises(LabelStudioApiError) as caught:
        answering(400, body).add_ml_backend({})
    assert caught.value.status == 400
    assert caught.value.detail == "Can't connect. Learn more."
    assert "Can't connect. Learn more." in caught.value.message


def test_a_reason_of_any_length_stays_short() -> None:
    with pytest.raises(LabelStudioApiError) as caught:
        answering(400, refusal(400, "x" * 100_000)).project(1)
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError])
def test_label_studio_being_down_is_said_plainly(error: type[httpx.TransportError]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error("Connection refused")

    with pytest.raises(LabelStudioUnreachableError, match=f"No Label Studio answers at {URL}"):
        client_for(handler).whoami()


def test_label_studio_being_slow_is_told_apart_from_being_down() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    with pytest.raises(LabelStudioUnreachableError, match="did not answer in time"):
        client_for(handler).whoami()


@pytest.mark.parametrize("status", [200, 404])
def test_another_web_server_is_not_taken_for_label_studio(status: int) -> None:
    client = client_for(lambda request: httpx.Response(status, text="<html>It works</html>"))
    with pytest.raises(LabelStudioError, match="is not Label Studio"):
        client.whoami()


def test_an_answer_of_another_shape_names_the_field() -> None:
    with pytest.raises(LabelStudioError, match="not as expected: email"):
        answering(200, {"id": 1}).whoami()


def test_a_redirect_is_not_followed_but_shown() -> None:
    client = answering(301, {}, {"Location": "https://studio.example/"})
    with pytest.raises(LabelStudioError, match=r"redirects to https://studio\.example/"):
        client.whoami()


def test_a_server_error_keeps_its_status() -> None:
    client = client_for(lambda request: httpx.Response(502, text="Bad gateway"))
    with pytest.raises(LabelStudioApiError) as caught:
        client.project(1)
    assert caught.value.status == 502


def test_tasks_are_read_page_by_page_to_the_end() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        page = int(request.url.params["page"])
        ids = range(250, 0, -1)[(page - 1) * 100 : page * 100]
        tasks = [{"id": number, "data": {"image": "x"}} for number in ids]
        return httpx.Response(200, json={"total": 250, "tasks": tasks})

    assert [task.id for task in client_for(handler).tasks(3)] == list(range(1, 251))


@pytest.mark.parametrize("later", [[], [{"id": 1, "data": {}}]])
def test_pages_that_bring_nothing_new_end_the_reading(later: list[dict[str, object]]) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        tasks = [{"id": 1, "data": {}}] if request.url.params["page"] == "1" else later
        return httpx.Response(200, json={"total": 5, "tasks": tasks})

    assert [task.id for task in client_for(handler).tasks(3)] == [1]


def uploads(request: httpx.Request) -> httpx.Response:
    """Numbers uploads as they come and lists them in another order."""
    if request.method == "POST":
        names = [part.split(b'"')[0] for part in request.content.split(b'filename="')[1:]]
        ids = [int(name.split(b".")[0]) for name in names]
        return httpx.Response(201, json={"file_upload_ids": ids})
    ids = json.loads(request.url.params["ids"])
    listed: list[dict[str, Any]] = [{"id": i, "file": f"upload/3/{i}.png"} for i in ids]
    return httpx.Response(200, json=listed[::-1])


def test_uploads_come_back_in_the_order_of_the_files() -> None:
    files = [(f"{number}.png", b"png", "image/png") for number in range(60)]
    stored = client_for(uploads).upload_files(3, files)
    assert [upload.id for upload in stored] == list(range(60))
    assert stored[5].address == "/data/upload/3/5.png"


def test_an_upload_that_got_lost_is_noticed() -> None:
    client = client_for(
        lambda request: (
            httpx.Response(201, json={"file_upload_ids": [1]})
            if request.method == "POST"
            else httpx.Response(200, json=[])
        )
    )
    with pytest.raises(LabelStudioError, match="stored 0 of 1"):
        client.upload_files(3, [("a.png", b"", "image/png")])


def test_an_import_that_makes_too_few_tasks_is_noticed() -> None:
    with pytest.raises(LabelStudioError, match="did not make the 2 tasks"):
        answering(201, {"task_ids": [1]}).import_tasks(3, [{"image": "a"}, {"image": "b"}])


def test_predictions_are_retrieved_for_the_named_tasks_only() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"processed_items": 2})

    client_for(handler).retrieve_predictions(3, [4, 5])
    client_for(handler).retrieve_predictions(3)
    assert seen[0].url.path == "/api/dm/actions/"
    assert dict(seen[0].url.params) == {"id": "retrieve_tasks_predictions", "project": "3"}
    assert json.loads(seen[0].content)["selectedItems"] == {"all": False, "included": [4, 5]}
    assert json.loads(seen[1].content)["selectedItems"] == {"all": True, "excluded": []}

"""Without a login, web pages of other hosts cannot call a backend on the user's own machine."""

from __future__ import annotations

from typing import Any

import pytest

from backend.access import SECRET_HEADER
from tests.backend.serving import CONFIG, Running, Serve

GUARDED = [("POST", "/setup"), ("POST", "/predict"), ("POST", "/webhook")]
GUARDED += [("GET", "/versions"), ("GET", "/metrics")]
OWN = ["localhost", "LOCALHOST:9090", "localhost.", "127.0.0.1", "127.0.0.1:80", "[::1]:9090"]
ELSEWHERE = ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "localhost.evil", "[:"]


def setup_as(running: Running, **headers: str) -> int:
    return running.post("/setup", {"schema": CONFIG}, headers=headers).status_code


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:9090"])
def test_a_call_under_the_name_of_a_web_page_is_refused_with_what_to_do(
    running: Running, method: str, path: str, host: str
) -> None:
    reply = running.client.request(method, path, headers={"Host": host}, json={})
    assert reply.status_code == 421
    assert "evil.example" in reply.json()["detail"]
    assert "SEGZERO_ALLOWED_HOSTS" in reply.json()["detail"]


@pytest.mark.parametrize("host", OWN)
def test_a_call_under_a_name_of_this_machine_is_answered(running: Running, host: str) -> None:
    assert setup_as(running, Host=host) == 200


@pytest.mark.parametrize("host", [*ELSEWHERE, "", "10.0.0.7:9090"])
def test_a_call_under_any_other_name_is_refused(running: Running, host: str) -> None:
    assert setup_as(running, Host=host) == 421


@pytest.mark.parametrize("origin", ["null", *(f"http://{host}" for host in ELSEWHERE)])
def test_a_web_page_of_another_host_is_refused(running: Running, origin: str) -> None:
    assert setup_as(running, Origin=origin) == 403


def test_a_web_page_of_this_machine_is_not_refused(running: Running) -> None:
    assert setup_as(running, Origin="http://localhost:8080") == 200


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_probes_may_call_under_any_name(running: Running, path: str) -> None:
    assert running.get(path, headers={"Host": "evil.example"}).status_code in {200, 503}


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ({"backend_url": "http://segzero.example:9090"}, "segzero.example:9090"),
        ({"allowed_hosts": ("host.docker.internal:9090",)}, "host.docker.internal:9090"),
        ({"allowed_hosts": ("minio", "Segzero.Example")}, "segzero.example"),
        ({"host": "localhost"}, "localhost:9090"),
    ],
)
def test_label_studio_may_call_under_a_name_that_the_settings_have(
    serve: Serve, given: dict[str, Any], host: str
) -> None:
    with serve(**given) as running:
        assert setup_as(running, Host=host) == 200
        assert setup_as(running, Host="evil.example") == 421


def test_whoever_has_the_login_may_call_under_any_name(serve: Serve) -> None:
    with serve(user="ada", password="secret") as running:
        headers = {"Host": "segzero.example"}
        reply = running.post("/setup", {}, headers=headers, auth=("ada", "secret"))
        assert reply.status_code == 200
        assert running.post("/setup", {}, headers=headers).status_code == 401


def test_a_webhook_with_the_secret_may_come_under_any_name(serve: Serve) -> None:
    hook = {"action": "ANNOTATION_CREATED"}
    with serve(webhook_secret="hook-1") as running:
        headers = {"Host": "segzero.example", SECRET_HEADER: "hook-1"}
        assert running.post("/webhook", hook, headers=headers).status_code == 200
        assert setup_as(running, Host="segzero.example") == 421

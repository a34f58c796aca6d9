"""`segzero connect` against a real Label Studio."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from backend.connect import BackendAccess, connect
from backend.demo.processes import free_port
from backend.label_studio import LabelStudio
from backend.templates import labelling_config
from segzero_ml.errors import LabellingConfigError, LabelStudioError
from tests.e2e.conftest import StartStudio
from tests.e2e.world import Backend, Prepared, Studio


def segzero(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backend.cli", *map(str, arguments)],
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_connecting_registers_all_that_is_needed(
    client: LabelStudio, backend: Backend, prepared: Prepared
) -> None:
    [row] = client.ml_backends(prepared.project_id)
    assert row.is_connected
    assert row.is_interactive
    [webhook] = client.webhooks(prepared.project_id)
    assert webhook.url == backend.access.webhook_url
    secret = backend.environment["SEGZERO_WEBHOOK_SECRET"]
    assert webhook.headers == {"X-SegZero-Secret": secret}
    project = client.project(prepared.project_id)
    assert project.model_version == row.model_version == prepared.report.model_version
    assert prepared.report.todo == ()


def test_connecting_again_changes_nothing_and_says_so(
    studio: Studio, client: LabelStudio, backend: Backend, prepared: Prepared
) -> None:
    def seen() -> object:
        project_id = prepared.project_id
        return (
            [row.model_dump() for row in client.ml_backends(project_id)],
            client.webhooks(project_id),
            client.project(project_id),
        )

    before = seen()
    ran = segzero(
        "connect",
        "--project",
        prepared.project_id,
        "--backend-url",
        backend.access.url,
        SEGZERO_LABEL_STUDIO_URL=studio.url,
        SEGZERO_LABEL_STUDIO_TOKEN=studio.login.token,
        **backend.environment,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Nothing had to be changed." in ran.stdout
    assert seen() == before


def test_a_wrong_login_leaves_nothing_behind(client: LabelStudio, backend: Backend) -> None:
    project = client.create_project("Wrong login", labelling_config())
    with pytest.raises(LabelStudioError, match="does not accept the login"):
        connect(client, project.id, BackendAccess(backend.access.url))
    assert client.ml_backends(project.id) == []
    assert client.webhooks(project.id) == []


def test_a_backend_that_is_down_leaves_nothing_behind(client: LabelStudio) -> None:
    project = client.create_project("No backend", labelling_config())
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LabelStudioError, match=f"cannot reach the backend at {url}"):
        connect(client, project.id, BackendAccess(url))
    assert client.ml_backends(project.id) == []
    assert client.webhooks(project.id) == []


def test_a_config_in_which_no_prediction_could_be_shown_is_refused(
    client: LabelStudio, backend: Backend
) -> None:
    config = (
        '<View><Image name="image" value="$image"/><Rating name="beauty" toName="image"/></View>'
    )
    project = client.create_project("Stars only", config)
    with pytest.raises(LabellingConfigError, match="predictions cannot be shown"):
        connect(client, project.id, backend.access)
    assert client.ml_backends(project.id) == []


def test_label_studio_that_blocks_private_addresses_names_the_switches(
    studio: Studio, backend: Backend, start_studio: StartStudio
) -> None:
    blocking = start_studio(share=studio, allow_local_backends=False)
    with LabelStudio(blocking.url, blocking.login.token) as client:
        project = client.create_project("Blocked", labelling_config())
        with pytest.raises(LabelStudioError, match="private network") as caught:
            connect(client, project.id, backend.access)
        assert "SSRF_PROTECTION_ENABLED=false" in caught.value.remedy
        assert client.ml_backends(project.id) == []
        assert client.webhooks(project.id) == []


def test_a_wrong_token_is_one_message_and_exit_code_1(studio: Studio) -> None:
    ran = segzero("connect", "--url", studio.url, "--token", "0" * 40, "--project", 1)
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: Label Studio does not accept the token.")
    assert "What to do:" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_wrong_personal_token_is_one_message_and_exit_code_1(studio: Studio) -> None:
    ran = segzero("connect", "--url", studio.url, "--token", "eyJ.eyJ.sig", "--project", 1)
    assert ran.returncode == 1
    assert "does not accept the personal access token" in ran.stderr


def test_a_missing_project_is_one_message_and_exit_code_1(studio: Studio) -> None:
    ran = segzero("connect", "--url", studio.url, "--token", studio.login.token, "--project", 9999)
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: There is no project 9999")


def test_label_studio_down_is_one_message_and_exit_code_1() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        ran = segzero("connect", "--url", url, "--token", "0" * 40, "--project", 1)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"Error: No Label Studio answers at {url}")

"""The process that serves: refuses what is unsafe, answers at once, stops when told."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from backend.app import create_app
from backend.serve import Server, serve
from backend.settings import load_settings
from segzero_ml.errors import ConfigError, PresetError

ANYWHERE = "0.0.0.0"  # noqa: S104 - refused before it is listened on
RUN = "from backend.serve import serve; from backend.settings import load_settings; "


def test_listening_beyond_this_machine_without_a_login_is_refused() -> None:
    with pytest.raises(ConfigError, match="SEGZERO_PASSWORD"):
        serve(load_settings(host=ANYWHERE))


def test_unknown_preset_is_refused_before_anything_listens() -> None:
    with pytest.raises(PresetError, match="tiny"):
        serve(load_settings(preset="gpt-7"))


def test_malformed_token_is_refused_before_anything_listens() -> None:
    with pytest.raises(ConfigError, match="token is empty or malformed"):
        serve(load_settings(label_studio_url="http://ls", label_studio_token="two words"))


def test_draining_by_default_ends_before_docker_kills() -> None:
    settings = load_settings()
    limit = Server(create_app(settings), settings).config.timeout_graceful_shutdown
    assert limit is not None
    assert settings.drain_s < limit < 10


@pytest.mark.slow
def test_process_answers_before_the_model_is_loaded_and_stops_at_a_signal() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", RUN + f"serve(load_settings(port={port}))"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/health").json()["status"] == "UP"
                break
            except httpx.TransportError:
                assert time.monotonic() < until
                assert process.poll() is None
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in {0, -signal.SIGTERM}
    lines = [json.loads(line) for line in log.splitlines()]
    assert any("Finished server process" in line["message"] for line in lines)
    assert not [line for line in lines if line["level"] == "error"]

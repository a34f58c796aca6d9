"""The two servers of the demo and of the end-to-end tests: Label Studio and this backend."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from backend.demo.processes import LOOPBACK, Child, ProcessError, local_env

LABEL_STUDIO_START_S: Final = 900.0
"""The first start makes the database: seconds on a quick machine, minutes on a busy one."""

MODEL_LOAD_S: Final = 600.0

_STOP_S: Final = 120.0
"""`segzero up` stops one process after the other, Redis last, and kills by itself."""

_FOREIGN_PREFIXES: Final = ("LABEL_STUDIO_", "HEARTEX_", "POSTGRE_", "DJANGO_", "SENTRY_", "ML_")
_FOREIGN_NAMES: Final = frozenset(
    {"HOST", "PORT", "USERNAME", "PASSWORD", "USER_TOKEN", "DEBUG", "DATABASE_NAME"}
    | {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
)


@dataclass(frozen=True, slots=True)
class Login:
    """A user of Label Studio.

    Args:
        email: What the user signs in with.
        password: The password.
        token: The legacy API token, 40 hex digits.
    """

    email: str
    password: str
    token: str

    @classmethod
    def generate(cls, email: str = "demo@segzero.local") -> Login:
        """A login with a new password and token."""
        return cls(email, secrets.token_urlsafe(9), secrets.token_hex(20))


@dataclass(frozen=True, slots=True)
class BackendLogin:
    """What Label Studio shows this backend."""

    user: str
    password: str
    webhook_secret: str

    @classmethod
    def generate(cls) -> BackendLogin:
        """A login with a new password and secret."""
        return cls("label-studio", secrets.token_urlsafe(18), secrets.token_urlsafe(18))


def start_label_studio(
    program: Path,
    data: Path,
    port: int,
    login: Login,
    log: Path,
    *,
    allow_local_backends: bool = True,
) -> Child:
    """Start Label Studio on this machine only, without a browser and without calling home.

    The user is made with the data folder; an existing folder keeps its users and tokens.

    Args:
        program: The `label-studio` program.
        data: Folder of its database and uploads; made if missing.
        port: Port to listen on; must be free, or Label Studio takes the next one.
        login: The first user. Not on the command line, where others could read it.
        log: Where its output goes.
        allow_local_backends: Let it call backends on this machine and private networks.
    """
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    env = local_env(
        os.environ, lambda name: name.startswith(_FOREIGN_PREFIXES) or name in _FOREIGN_NAMES
    )
    env |= {
        "ML_BLOCK_LOCAL_IP": "false" if allow_local_backends else "true",
        "SSRF_PROTECTION_ENABLED": "false" if allow_local_backends else "true",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LABEL_STUDIO_USERNAME": login.email,
        "LABEL_STUDIO_PASSWORD": login.password,
        "LABEL_STUDIO_USER_TOKEN": login.token,
    }
    command = [str(program), "start", "--no-browser", "--internal-host", LOOPBACK]
    command += ["--port", str(port), "--data-dir", str(data), "--enable-legacy-api-token"]
    return Child("Label Studio", command, env, log)


def start_backend(
    port: int,
    label_studio_url: str,
    label_studio_token: str,
    login: BackendLogin,
    log: Path,
    preset: str = "tiny",
    data: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> Child:
    """Start `segzero up` on this machine, with a login and a webhook secret.

    Args:
        port: Port of the backend; must be free.
        label_studio_url: Address of Label Studio.
        label_studio_token: A token of its user.
        login: What Label Studio has to show.
        log: Where the output of all its processes goes.
        preset: The models.
        data: Its data folder; by default one beside the log.
        more: Further settings, as environment variables.
    """
    env = local_env(os.environ, lambda name: name.startswith("SEGZERO_"))
    env |= {
        "SEGZERO_PRESET": preset,
        "SEGZERO_LABEL_STUDIO_URL": label_studio_url,
        "SEGZERO_LABEL_STUDIO_TOKEN": label_studio_token,
        "SEGZERO_USER": login.user,
        "SEGZERO_PASSWORD": login.password,
        "SEGZERO_WEBHOOK_SECRET": login.webhook_secret,
        "SEGZERO_DATA_DIR": str(data or log.with_name("segzero")),
        "SEGZERO_HOST": LOOPBACK,
        "SEGZERO_PORT": str(port),
        **(more or {}),
    }
    return Child("SegZero", [sys.executable, "-P", "-m", "backend.cli", "up"], env, log, _STOP_S)


def wait_for_model(backend: Child, url: str, tick: Callable[[float], None] | None = None) -> None:
    """Wait until the backend has loaded its model.

    Args:
        backend: A process of `start_backend`.
        url: Its address.
        tick: Called now and then with the seconds waited.

    Raises:
        ProcessError: It stopped, takes too long, or its model cannot be loaded.
    """

    def is_ready(response: httpx.Response) -> bool:
        detail = response.json().get("detail") if not response.is_success else None
        if detail:
            raise ProcessError(f"The backend cannot load its model: {detail}")
        return response.is_success

    backend.wait_until(f"{url}/ready", MODEL_LOAD_S, tick, is_ready)

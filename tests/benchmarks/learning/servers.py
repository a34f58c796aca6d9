"""A real Label Studio and `segzero up` for one project, as a user starts them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from backend.connect import BackendAccess
from backend.demo.install import install, installed
from backend.demo.processes import Child, free_port
from backend.demo.servers import (
    LABEL_STUDIO_START_S,
    BackendLogin,
    Login,
    start_backend,
    start_label_studio,
    wait_for_model,
)
from backend.label_studio import LabelStudio
from backend.settings import Settings, load_settings

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Servers:
    """What runs.

    Args:
        client: Label Studio's API, as its user.
        token: That user's.
        access: How Label Studio reaches the backend.
        up: The process of `segzero up`; its log is that of all its processes.
        settings: With which its data can be read.
    """

    client: LabelStudio
    token: str
    access: BackendAccess
    up: Child
    settings: Settings

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a `segzero` command beside it."""
        password, secret = self.access.password, self.access.webhook_secret
        return {
            "SEGZERO_LABEL_STUDIO_URL": self.client.url,
            "SEGZERO_LABEL_STUDIO_TOKEN": self.token,
            "SEGZERO_USER": self.access.user or "",
            "SEGZERO_PASSWORD": password.get_secret_value() if password else "",
            "SEGZERO_WEBHOOK_SECRET": secret.get_secret_value() if secret else "",
            "SEGZERO_DATA_DIR": str(self.settings.data_dir),
        }


@contextmanager
def servers(folder: Path, more: Mapping[str, str]) -> Iterator[Servers]:
    """Start both on empty data, and stop them at the end.

    Args:
        folder: Their data and logs.
        more: Further settings of `segzero up`.
    """
    program = label_studio()
    login, backend_login = Login.generate(), BackendLogin.generate()
    port, backend_port = free_port(), free_port()
    data = folder / "segzero"
    with ExitStack() as stack:
        studio = stack.enter_context(
            start_label_studio(
                program, folder / "label-studio", port, login, folder / "label-studio.log"
            )
        )
        url = f"http://127.0.0.1:{port}"
        up = stack.enter_context(
            start_backend(
                backend_port,
                url,
                login.token,
                backend_login,
                folder / "segzero.log",
                data=data,
                more=more,
            )
        )
        studio.wait_until(f"{url}/health", LABEL_STUDIO_START_S)
        access = BackendAccess(
            f"http://127.0.0.1:{backend_port}",
            backend_login.user,
            SecretStr(backend_login.password),
            SecretStr(backend_login.webhook_secret),
        )
        wait_for_model(up, access.url)
        client = stack.enter_context(LabelStudio(url, login.token))
        yield Servers(client, login.token, access, up, load_settings(data_dir=data))
    # Its pictures and predictions can be drawn again; what was learnt stays.
    shutil.rmtree(folder / "label-studio", ignore_errors=True)


def label_studio() -> Path:
    """The `label-studio` program, installed where it is missing."""
    cache = ROOT / ".cache" / "label-studio"
    found = installed(cache) or installed(ROOT / ".demo" / "label-studio")
    return found or install(cache, ROOT / ".cache" / "label-studio-install.log")

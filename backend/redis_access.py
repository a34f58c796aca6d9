"""Where this installation's Redis is: the operator's own, or the embedded one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from redis import Redis

from backend.settings import Settings
from segzero_ml.errors import ConfigError
from training_hooks.redis_client import connect
from training_hooks.redis_setup import read_url

_FOLDER: Final = "redis"


def redis_folder(settings: Settings) -> Path:
    """The data folder of the embedded server."""
    return settings.data_dir.absolute() / _FOLDER


def spool_folder(settings: Settings) -> Path:
    """Where webhooks wait on disk until Redis has them."""
    return settings.data_dir.absolute() / "spool"


def redis_address(settings: Settings) -> str | None:
    """Where Redis listens, or listened last; None where there is none yet. Holds a password."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return read_url(redis_folder(settings))


def open_redis(
    settings: Settings, name: str = "segzero", *, timeout_s: float = 5.0, retries: int = 3
) -> Redis:
    """A client of this installation's Redis; nothing is sent yet.

    Args:
        settings: They say where it is.
        name: What the server's list of clients calls this one.
        timeout_s: Longest wait for a connection, and for each reply.
        retries: How often a command is sent again.

    Raises:
        ConfigError: There is no address, or it cannot be understood.
    """
    address = redis_address(settings)
    if address is None:
        raise ConfigError(
            f"There is no Redis: none was ever started in {settings.data_dir.absolute()}.",
            "Start everything with segzero up, or give the address of your own Redis "
            "(SEGZERO_REDIS_URL); run this in the folder where segzero up runs, or set "
            "SEGZERO_DATA_DIR.",
        )
    return connect(address, timeout_s=timeout_s, retries=retries, name=name)

"""`segzero up`: everything that one machine needs, in one command."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backend.commands.serve import check_port

if TYPE_CHECKING:
    from backend.settings import Settings

_log = logging.getLogger(__name__)


def up(
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on. Anything but this machine itself needs SEGZERO_USER, "
            "SEGZERO_PASSWORD and SEGZERO_WEBHOOK_SECRET [default: 127.0.0.1]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port to listen on, 0 for any free [default: 9090]", min=0, max=65535),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Which models to serve; `segzero presets` lists them [default: tiny]"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of everything that must not be lost [default: segzero-data]",
            show_default=False,
        ),
    ] = None,
    redis_url: Annotated[
        str | None,
        typer.Option(
            help="Your own Redis (6.2 or newer) instead of the embedded one. With a password, "
            "set SEGZERO_REDIS_URL instead: others can read command lines.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the backend, its workers and a Redis until Ctrl-C.

    All that one machine needs; the Redis is embedded, unless you give one of your own. What
    ends by itself is started again. Ctrl-C lets running work finish, the backend first and
    Redis last; a second Ctrl-C hurries. On a terminal it writes text, otherwise one JSON object
    a line.

    Everything can also be set as SEGZERO_HOST, SEGZERO_PORT, SEGZERO_DATA_DIR and so on, as
    for `segzero serve`. Then join a project with `segzero connect`, and see how it does with
    `segzero status`.

    Example: `segzero up --preset visionreasoner-7b --data-dir /srv/segzero`
    """
    from backend.settings import check_exposure, load_settings
    from backend.supervisor.plan import locked
    from segzero_ml.presets import get_preset

    settings = load_settings(
        host=host, port=port, preset=preset, data_dir=data_dir, redis_url=redis_url
    )
    get_preset(settings.preset)
    check_exposure(settings)
    with locked(settings.data_dir):
        free = check_port(settings.host, settings.port)
        _run(settings.model_copy(update={"port": free}))


def _run(settings: Settings) -> None:
    from backend.supervisor.announce import Announcer
    from backend.supervisor.console import Console, log_to
    from backend.supervisor.plan import names, stages
    from backend.supervisor.supervise import Supervisor

    people = sys.stderr.isatty()
    colour = people and not os.environ.get("NO_COLOR")
    console = Console(sys.stderr, people=people, colour=colour, names=names(settings))
    log_to(console)
    _introduce(settings)
    announcer = Announcer(settings)
    Supervisor(stages(settings, console.write, os.environ, announcer.watch)).run()


def _introduce(settings: Settings) -> None:
    """Say what runs where, where the data lie, and whether anything is trained."""
    from backend.learning.installed import HOW_TO_INSTALL, can_train
    from backend.redis_access import redis_address, redis_folder
    from training_hooks.redis_client import redacted

    redis = f"embedded, in {redis_folder(settings)}"
    if settings.redis_url is not None:
        redis = redacted(redis_address(settings) or "")
        _warn_of_redis(settings)
    _log.info("Backend: http://%s:%d, preset %s", settings.host, settings.port, settings.preset)
    _log.info("Redis:   %s", redis)
    _log.info("Data:    %s", settings.data_dir.absolute())
    if not can_train():
        _log.warning("Nothing is trained: what trains is not installed here. %s", HOW_TO_INSTALL)


def _warn_of_redis(settings: Settings) -> None:
    """Say what about a Redis of the user's own may lose data. One that is away may come later."""
    from backend.redis_access import open_redis
    from segzero_ml.errors import StoreError
    from training_hooks.redis_client import probe

    with open_redis(settings, timeout_s=3.0, retries=0) as client:
        try:
            for problem in probe(client):
                _log.warning("%s", problem)
        except StoreError as error:
            _log.warning("%s Until it does, events from Label Studio wait on disk.", error)

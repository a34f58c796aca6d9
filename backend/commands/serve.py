"""`segzero serve`: the backend itself."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from segzero_ml.errors import ConfigError


def serve(
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
        typer.Option(help="Port to listen on [default: 9090]", min=0, max=65535),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Which models to serve; `segzero presets` lists them [default: tiny]"),
    ] = None,
) -> None:
    """Serve predictions to Label Studio until Ctrl-C.

    Everything can also be set as SEGZERO_HOST, SEGZERO_PORT, SEGZERO_PRESET and so on. For
    pictures that lie in Label Studio, set SEGZERO_LABEL_STUDIO_URL and
    SEGZERO_LABEL_STUDIO_TOKEN. Then join a project with `segzero connect`.

    It answers /health at once and predicts when /ready says so. No workers: corrections wait
    until `segzero worker ingest` runs; usually you want `segzero up`.
    """
    from backend.serve import serve as run
    from backend.settings import check_exposure, load_settings
    from segzero_ml.presets import get_preset

    settings = load_settings(host=host, port=port, preset=preset)
    get_preset(settings.preset)
    check_exposure(settings)
    check_port(settings.host, settings.port)
    run(settings)


def check_port(host: str, port: int) -> int:
    """Refuse an address that cannot be listened on, in words.

    Returns:
        The port; one that is free if 0 was given.

    Raises:
        ConfigError: The port is taken or not permitted, or the host is not this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}, port {port}: {error.strerror or error}.",
            "Stop what uses it, or choose another with --port (and --host).",
        ) from error

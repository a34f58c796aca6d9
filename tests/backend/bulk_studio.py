"""A Label Studio on a port of this machine, with what pre-annotating in bulk needs of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from backend.templates import labelling_config
from tests.backend.studio import TOKEN

PROJECT: Final = 7

Reply = tuple[int, Any]


class BulkStudio:
    """One project whose tasks are listed, and given predictions.

    Args:
        data: The data of each task; task n is that of index n - 1.
        files: Path → content of the files.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], files: Mapping[str, bytes]) -> None:
        self.files = files
        self.config = labelling_config()
        self.tasks: dict[int, dict[str, Any]] = {
            number: {
                "id": number,
                "project": PROJECT,
                "data": dict(one),
                "predictions": [],
                "annotations": [],
            }
            for number, one in enumerate(data, 1)
        }
        self.writes: list[list[int]] = []
        self.before: Callable[[str, str], Reply | None] = lambda method, path: None
        self._lock = threading.Lock()

    def versions(self, number: int) -> list[str]:
        return [one["model_version"] for one in self.tasks[number]["predictions"]]

    def predict(self, number: int, version: str) -> None:
        """As if a prediction had been stored."""
        one = {"id": number * 1000, "model_version": version, "result": [], "score": 0.5}
        self.tasks[number]["predictions"].append(one)

    def answer(self, method: str, target: str, token: str, body: Any) -> Reply:
        url = urlsplit(target)
        if url.path in self.files:
            return 200, self.files[url.path]
        if token != f"Token {TOKEN}":
            return 401, {"detail": "Invalid token."}
        early = self.before(method, url.path)
        if early is not None:
            return early
        with self._lock:
            if url.path == f"/api/projects/{PROJECT}/":
                return 200, {"id": PROJECT, "title": "Shelf", "label_config": self.config}
            if url.path == "/api/tasks/":
                return 200, self._list({name: one[0] for name, one in parse_qs(url.query).items()})
            if url.path == f"/api/projects/{PROJECT}/import/predictions":
                return self._store(body)
        return 404, {"detail": "Not found."}

    def _list(self, params: Mapping[str, str]) -> Any:
        assert params["review"] == "true"  # else Label Studio asks the backend itself
        assert params["resolve_uri"] == "false"
        [condition] = json.loads(params["query"])["filters"]["items"]
        assert condition["filter"] == "filter:tasks:id"
        wanted = {
            "greater": lambda number: number > condition["value"],
            "in_list": lambda number: number in condition["value"],
        }[condition["operator"]]
        found = [task for number, task in sorted(self.tasks.items()) if wanted(number)]
        return {"tasks": found[: int(params["page_size"])], "total": len(found)}

    def _store(self, body: Any) -> Reply:
        for one in body:
            if one["task"] not in self.tasks:
                return 400, {"detail": f"task ID {one['task']} not found in project"}
        for one in body:
            self.tasks[one["task"]]["predictions"].append(one)
        self.writes.append([one["task"] for one in body])
        return 201, {"created": len(body)}


@contextmanager
def served(studio: BulkStudio) -> Iterator[str]:
    """Its address, for the time of a `with`."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            token = self.headers.get("Authorization", "")
            status, found = studio.answer(self.command, self.path, token, body)
            content = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = _do  # noqa: N815
        do_POST = _do  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()

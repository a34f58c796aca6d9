"""A Label Studio at the network seam, with the habits that connecting has to cope with."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

from backend.label_studio import LabelStudio

URL = "http://studio.example:8080"
TOKEN = "0123456789abcdef0123456789abcdef01234567"
BLOCKED = "URL resolves to a reserved network address (block: 127.0.0.0/8)"


class FakeStudio:
    """One project, its backends and webhooks, as Label Studio 1.23 keeps them.

    Args:
        label_config: The project's labelling config.
    """

    def __init__(self, label_config: str) -> None:
        self.project: dict[str, Any] = {
            "id": 7,
            "title": "Shelf",
            "label_config": label_config,
            "model_version": "",
            "show_collab_predictions": True,
        }
        self.rows: list[dict[str, Any]] = []
        self.webhooks: list[dict[str, Any]] = []
        self.changes: list[str] = []
        self.versions = ["tiny@1f3a5b7c"]
        self.backend_is_up = True
        self.blocks_backends = False
        self.blocks_webhooks = False
        self.login: tuple[str, str] | None = None
        self.login_refusal = "Able to connect to ML Server, but authentication parameters are bad."
        self.fails_at: str | None = None
        self._next_id = 1

    def client(self) -> LabelStudio:
        return LabelStudio(URL, TOKEN, transport=httpx.MockTransport(self))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("Authorization") != f"Token {TOKEN}":
            return refusal(401, "Invalid token.")
        call = f"{request.method} {request.url.path}"
        if request.method != "GET":
            self.changes.append(call)
        if self.fails_at is not None and re.fullmatch(self.fails_at, call):
            return refusal(500, "Internal error")
        body = json.loads(request.content) if request.content else {}
        parts = request.url.path.strip("/").split("/")[1:]
        number = int(parts[1]) if len(parts) == 2 and parts[1].isdigit() else None
        if parts == ["current-user", "whoami"]:
            return httpx.Response(200, json={"id": 1, "email": "a@b.co"})
        kind = {"projects": self._projects, "ml": self._ml, "webhooks": self._webhooks}[parts[0]]
        return kind(request.method, number, body)

    def _projects(self, method: str, number: int | None, body: dict[str, Any]) -> httpx.Response:
        if number != self.project["id"]:
            return refusal(404, "No Project matches the given query.")
        version = body.get("model_version")
        if version is not None and version not in [row["title"] for row in self.rows]:
            return refusal(400, "Model version doesn't exist either as live model or as static.")
        self.project |= body
        return httpx.Response(200, json=self.project)

    def _ml(self, method: str, number: int | None, body: dict[str, Any]) -> httpx.Response:
        if method == "GET":
            for known in self.rows:
                self._refresh(known)
            return httpx.Response(200, json=self.rows)
        if method == "DELETE":
            self.rows = [row for row in self.rows if row["id"] != number]
            return httpx.Response(204)
        refused = self._refused(body)
        if refused is not None:
            return refused
        if method == "PATCH":
            return self._change(number, body)
        row: dict[str, Any] = {"id": self._id(), **body}
        self.rows.append(row)
        url = f"{body['url'].rstrip('/')}/webhook"
        if not any(hook["url"] == url for hook in self.webhooks):
            if self.blocks_webhooks:
                return refusal(403, BLOCKED)  # and the row stays
            self.webhooks.append(self._webhook({"url": url}))
        if not self.project["model_version"]:
            self.project["model_version"] = row["title"]
        self._refresh(row)
        return httpx.Response(201, json=row)

    def _refused(self, body: dict[str, Any]) -> httpx.Response | None:
        if self.blocks_backends:
            return refusal(403, BLOCKED)
        if not self.backend_is_up:
            return refusal(400, "Can't connect to ML backend, health check failed.")
        if self.login not in (None, (body.get("basic_auth_user"), body.get("basic_auth_pass"))):
            return refusal(400, self.login_refusal)
        return None

    def _change(self, number: int | None, body: dict[str, Any]) -> httpx.Response:
        row = next((row for row in self.rows if row["id"] == number), None)
        if row is None:
            return refusal(404, "No MLBackend matches the given query.")
        if self.project["model_version"] == row["title"]:
            self.project["model_version"] = body["title"]
        row |= body
        self._refresh(row)
        return httpx.Response(200, json=row)

    def _refresh(self, row: dict[str, Any]) -> None:
        login = (row.get("basic_auth_user"), row.get("basic_auth_pass"))
        up = self.backend_is_up and self.login in (None, login)
        row["state"] = "CO" if up else "DI"
        if up:
            row["model_version"] = self.versions[0]
            if len(self.versions) > 1:
                self.versions.pop(0)

    def _webhooks(self, method: str, number: int | None, body: dict[str, Any]) -> httpx.Response:
        if method == "GET":
            return httpx.Response(200, json=self.webhooks)
        if method == "DELETE":
            self.webhooks = [hook for hook in self.webhooks if hook["id"] != number]
            return httpx.Response(204)
        if self.blocks_webhooks:
            return refusal(403, BLOCKED)
        if method == "POST":
            self.webhooks.append(self._webhook(body))
            return httpx.Response(201, json=self.webhooks[-1])
        hook = next(hook for hook in self.webhooks if hook["id"] == number)
        hook |= {"actions": [], **body}  # a PATCH without actions clears them
        return httpx.Response(200, json=hook)

    def _webhook(self, body: dict[str, Any]) -> dict[str, Any]:
        defaults = {
            "headers": {},
            "is_active": True,
            "send_payload": True,
            "send_for_all_actions": True,
            "actions": [],
        }
        return {"id": self._id(), "project": 7, **defaults, **body}

    def _id(self) -> int:
        self._next_id += 1
        return self._next_id


def refusal(status: int, detail: str) -> httpx.Response:
    return httpx.Response(status, json={"status_code": status, "detail": detail})

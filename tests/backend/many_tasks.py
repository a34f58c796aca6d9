"""A Label Studio in memory that can be listed, edited, and made to fail on the way."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, Final

import httpx

from backend.annotations import NoCorrection, find_prediction, to_correction
from backend.label_studio import LabelStudio
from backend.labelling import parse_config
from backend.settings import Settings, load_settings
from backend.templates import labelling_config
from segzero_ml.corrections import Correction, CorrectionKey, Revision
from tests.backend.annotated import CROSS, RING, STAR, annotation, brush, kept, predicted
from tests.backend.annotated import prediction as made_prediction
from tests.backend.annotated import task as made_task
from tests.backend.studio import TOKEN, URL, refusal

PROJECT: Final = 7
SETTINGS: Final[Settings] = load_settings(label_studio_url=URL, label_studio_token=TOKEN)
CONFIG: Final = labelling_config()
LABELLING: Final = parse_config(CONFIG)

Fault = Callable[[httpx.Request, httpx.Response], httpx.Response]
"""What becomes of an answer on its way."""


def as_it_is(request: httpx.Request, response: httpx.Response) -> httpx.Response:
    return response


class ManyTasks:
    """One project with tasks, predictions and annotations, as Label Studio 1.23 lists them.

    Args:
        rng: Decides what the people do.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self.rng = rng or random.Random(0)
        self.now = datetime(2026, 3, 4, 5, tzinfo=UTC)
        self.tasks: dict[int, dict[str, Any]] = {}
        self.annotations: dict[int, dict[str, Any]] = {}
        self.fault: Fault = as_it_is
        self.before: Callable[[httpx.Request], None] = lambda request: None
        self.calls: list[httpx.Request] = []
        self.config = CONFIG
        self.fetches_predictions = False
        self._task_ids, self._ids = count(1), count(1001)

    # What people do

    def add_task(self) -> int:
        number = next(self._task_ids)
        shown = [predicted(RING)] if self.rng.random() < 0.7 else []
        self.tasks[number] = made_task(image=f"/data/upload/7/{number}.png") | {
            "id": number,
            "project": PROJECT,
            "predictions": [
                made_prediction(*shown, id=number + 10**6, task=number, project=PROJECT)
            ],
        }
        return number

    def annotate(self, task: int, **changes: Any) -> int:
        number = next(self._ids)
        shown = self.tasks[task]["predictions"][0]["result"]
        body = annotation(id=number, task=task, project=PROJECT, updated_at=self._tick())
        body |= {"result": self._drawing(shown), "was_cancelled": self.rng.random() < 0.2}
        body["parent_prediction"] = self.tasks[task]["predictions"][0]["id"]
        self.annotations[number] = body | changes
        return number

    def edit(self, number: int, **changes: Any) -> None:
        body = self.annotations[number]
        shown = self.tasks[body["task"]]["predictions"][0]["result"]
        body |= {"result": self._drawing(shown), "was_cancelled": self.rng.random() < 0.2}
        body |= {"lead_time": self.rng.uniform(1, 60), "updated_at": self._tick(), **changes}

    def mark_ground_truth(self, number: int) -> None:
        """As Label Studio does: the others of the task lose the mark and keep their time."""
        for other in self.annotations.values():
            if other["task"] == self.annotations[number]["task"]:
                other["ground_truth"] = False
        self.annotations[number] |= {"ground_truth": True, "updated_at": self._tick()}

    def delete(self, number: int) -> None:
        del self.annotations[number]

    def delete_task(self, task: int) -> None:
        del self.tasks[task]
        for number in [n for n, one in self.annotations.items() if one["task"] == task]:
            del self.annotations[number]

    def do_something(self) -> None:
        """One thing that people do, at random."""
        choices: list[Callable[[], object]] = [
            self.add_task,
            lambda: self.annotate(self.rng.choice([*self.tasks])),
        ]
        if self.annotations:
            some = self.rng.choice([*self.annotations])
            choices += [
                lambda: self.edit(some),
                lambda: self.edit(some),
                lambda: self.mark_ground_truth(some),
                lambda: self.delete(some),
            ]
            if self.rng.random() < 0.1:
                choices.append(lambda: self.delete_task(self.annotations[some]["task"]))
        (self.rng.choice(choices) if self.tasks else self.add_task)()

    def _drawing(self, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
        mask = self.rng.choice([RING, STAR, CROSS])
        if shown and self.rng.random() < 0.6:
            return [kept(shown[0], self.rng.choice([None, mask]))]
        return [brush(mask)] if self.rng.random() < 0.8 else []

    def _tick(self) -> str:
        self.now += timedelta(milliseconds=self.rng.randrange(1, 5000))
        return self.now.isoformat().replace("+00:00", "Z")

    # What the store must hold

    def truth(self) -> tuple[dict[int, Correction], dict[int, Revision]]:
        """Corrections by annotation, and the revisions of what holds no truth."""
        corrections, withdrawn = {}, {}
        for number, body in self.annotations.items():
            task = self.tasks[body["task"]]
            came_from = find_prediction(body, task["predictions"])
            name, fields = SETTINGS.label_studio_name, SETTINGS.request_fields
            made = to_correction(body, task, came_from, LABELLING, name, request_fields=fields)
            if isinstance(made, NoCorrection):
                withdrawn[number] = made.identity.revision
            else:
                corrections[number] = made
        return corrections, withdrawn

    def key(self, number: int) -> CorrectionKey:
        return CorrectionKey(SETTINGS.label_studio_name, PROJECT, number)

    # HTTP

    def client(self) -> LabelStudio:
        return LabelStudio(URL, TOKEN, transport=httpx.MockTransport(self))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == f"Token {TOKEN}"
        self.calls.append(request)
        self.before(request)
        return self.fault(request, self._answer(request))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        place, *parts = request.url.path.strip("/").split("/")
        if place != "api":
            return httpx.Response(404, text="no such file")
        if parts == ["webhooks"]:
            hook = {"id": 1, "url": "http://127.0.0.1:9/webhook", "project": PROJECT}
            return httpx.Response(200, json=[hook])
        if parts == ["projects"]:
            return httpx.Response(200, json={"results": [{"id": PROJECT}], "next": None})
        if parts[0] == "projects":
            if parts[1:] != [str(PROJECT)]:
                return refusal(404, "No Project matches the given query.")
            body = {"id": PROJECT, "title": "Shelf", "label_config": self.config}
            more = {"evaluate_predictions_automatically": self.fetches_predictions}
            return httpx.Response(200, json=body | more)
        if parts[0] == "annotations":
            found = self.annotations.get(int(parts[1]))
            if found is None:
                return refusal(404, "No Annotation matches the given query.")
            return httpx.Response(200, json=found)
        assert parts == ["tasks"]
        return self._list(dict(request.url.params))

    def _list(self, params: dict[str, str]) -> httpx.Response:
        assert params["project"] == str(PROJECT)
        [condition] = json.loads(params["query"])["filters"]["items"]
        assert (condition["filter"], condition["operator"]) == ("filter:tasks:id", "greater")
        later = [n for n in sorted(self.tasks) if n > condition["value"]]
        size, page = int(params["page_size"]), int(params["page"])
        numbers = later[(page - 1) * size : page * size]
        tasks = [self._task(number, params["fields"] == "all") for number in numbers]
        return httpx.Response(200, json={"tasks": tasks, "total": len(later)})

    def _task(self, number: int, with_contents: bool) -> dict[str, Any]:
        task = {name: value for name, value in self.tasks[number].items() if name != "predictions"}
        if with_contents:
            task["predictions"] = self.tasks[number]["predictions"]
            task["annotations"] = [a for a in self.annotations.values() if a["task"] == number]
        return task


@contextmanager
def served(studio: ManyTasks) -> Iterator[str]:
    """Its address on this machine, for what goes over the network."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = httpx.Request("GET", f"{URL}{self.path}", headers=dict(self.headers))
            answer = studio(request)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def lists_tasks(request: httpx.Request) -> bool:
    return request.url.path == "/api/tasks/"

"""What goes wrong with a click is told in the editor, and costs no suggestion."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from label_studio_sdk.label_interface.interface import LabelInterface as _LabelInterface
from PIL import Image

from backend.problems import PROBLEM_MARK
from backend.templates import labelling_config
from segzero_ml.pipeline import Pipeline
from segzero_ml.tiny.scenes import Scene
from segzero_ml.types import ImageSize, Point
from tests.backend.serving import Running, Serve, StudioFiles, Watched, naming, task
from tests.backend.test_interactive import click, text

LabelInterface: Any = _LabelInterface  # its methods are without types
CONFIG = labelling_config(request_field=None)
WITHOUT_STATUS = CONFIG.replace('"status"', '"remarks"')
FUTURE = "2999-01-01T00:00:00Z"
Results = list[dict[str, Any]]


class Editor:
    """Somebody who works on scene 0, whose picture can be lost."""

    def __init__(self, running: Running, files: StudioFiles, scene: Scene) -> None:
        self.running = running
        self.scene = scene
        self._files = files
        self._picture = files.files["/data/upload/0.jpg"]

    def lose_picture(self) -> None:
        del self._files.files["/data/upload/0.jpg"]

    def find_picture(self, picture: bytes | None = None) -> None:
        self._files.files["/data/upload/0.jpg"] = picture or self._picture

    def do(self, *context: dict[str, Any], config: str = CONFIG, **stored: Any) -> Results:
        reply = self.running.post("/predict", self.body(*context, config=config, **stored))
        assert reply.status_code == 200, reply.text
        [found] = reply.json()["results"]
        assert LabelInterface(config).validate_prediction(found, return_errors=True) == []
        result: Results = found["result"]
        return result

    @staticmethod
    def body(*context: dict[str, Any], config: str = CONFIG, **stored: Any) -> dict[str, Any]:
        return {
            "tasks": [{**task(0), **stored}],
            "project": "1.1700000000",
            "label_config": config,
            "params": {"context": {"result": list(context)}},
        }

    def on(self, index: int = 0, positive: bool = True) -> dict[str, Any]:
        """A click in the middle of an object."""
        at = self.scene.objects[index].point_px
        return click(at, self.scene.size, positive, "Object")

    @property
    def beside(self) -> dict[str, Any]:
        """A click that takes away, where nothing is."""
        return click(Point(0, 0), self.scene.size, False, "Object")


Open = Callable[..., Editor]


@pytest.fixture
def open_editor(serve: Serve, scenes: list[Scene], tiny_pipeline: Pipeline) -> Iterator[Open]:
    """Starts a backend that fetches the picture anew for each call."""
    running: list[Any] = []

    def opened(load: Callable[[], Any] = lambda: tiny_pipeline, **settings: Any) -> Editor:
        files = StudioFiles(scenes)
        transport = httpx.MockTransport(files)
        backend = serve(load, transport=transport, image_cache_bytes=0, **settings)
        editor = Editor(backend.__enter__(), files, scenes[0])
        running.append(backend)
        return editor

    yield opened
    for backend in running:
        backend.__exit__(None, None, None)


@pytest.fixture
def editor(open_editor: Open) -> Editor:
    made = open_editor()
    made.running.wait_until_ready()
    return made


def lines(results: Sequence[dict[str, Any]], name: str = "status") -> list[str] | None:
    """What a reply puts into a TextArea; None where it leaves it as it is."""
    found = [one["value"]["text"] for one in results if one["from_name"] == name]
    assert len(found) <= 1
    return found[0] if found else None


def regions(results: Sequence[dict[str, Any]]) -> Results:
    return [one for one in results if one["type"] == "brushlabels"]


def saved(*results: dict[str, Any]) -> dict[str, Any]:
    return {"drafts": [{"updated_at": FUTURE, "result": list(results)}]}


def blank() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (400, 300), "white").save(stream, "PNG")
    return stream.getvalue()


def test_a_click_where_nothing_is_found_is_told_so(editor: Editor) -> None:
    editor.find_picture(blank())
    reply = editor.do(click(Point(200, 150), ImageSize(400, 300), True, "Object"))
    assert lines(reply) == ["No object was found there."]
    assert regions(reply) == []


def test_a_click_that_could_take_nothing_away_is_told_so(editor: Editor) -> None:
    [told] = lines(editor.do(editor.beside)) or []
    assert "takes away" in told


def test_a_click_on_a_picture_that_cannot_be_fetched_is_told_why(editor: Editor) -> None:
    editor.lose_picture()
    [why] = lines(editor.do(editor.on())) or []
    assert "/data/upload/0.jpg" in why


def test_a_suggestion_survives_a_click_that_fails(editor: Editor) -> None:
    first = editor.do(editor.on())
    editor.lose_picture()
    failed = editor.do(editor.on(), editor.beside)
    assert regions(failed) == regions(first)
    assert lines(failed)
    again = editor.do(editor.on(), editor.beside)
    assert regions(again) == regions(first)


def test_a_refined_suggestion_survives_with_what_it_was_refined_to(editor: Editor) -> None:
    first = editor.do(editor.on())
    stored = saved(*first)
    stored["drafts"][0]["updated_at"] = "2000-01-01T00:00:00Z"
    refined = editor.do(editor.on(), editor.beside, **stored)
    editor.lose_picture()
    failed = editor.do(editor.on(), editor.beside, editor.on(), **stored)
    assert regions(failed) == regions(refined)


def test_a_mask_that_was_accepted_and_saved_is_not_suggested_again(editor: Editor) -> None:
    first = editor.do(editor.on())
    editor.lose_picture()
    assert regions(editor.do(editor.on(), editor.beside, **saved(*first))) == []


def test_a_failing_click_elsewhere_brings_no_other_mask(editor: Editor) -> None:
    editor.do(editor.on())
    editor.lose_picture()
    assert regions(editor.do(editor.on(1))) == []


def test_the_next_answer_takes_away_what_was_told_and_later_ones_say_nothing(
    editor: Editor,
) -> None:
    assert lines(editor.do(editor.on())) is None
    editor.lose_picture()
    assert lines(editor.do(editor.on(), editor.beside))
    editor.find_picture()
    assert lines(editor.do(editor.on())) == []
    assert lines(editor.do(editor.on())) is None
    editor.lose_picture()
    assert lines(editor.do(text("request", "the star")))
    editor.find_picture()
    assert lines(editor.do(text("request", naming(editor.scene)))) == []


def test_a_problem_leaves_the_reasons_alone(editor: Editor) -> None:
    editor.lose_picture()
    for context in (editor.on(), text("request", "the star")):
        assert lines(editor.do(context), "notes") is None


def test_without_a_place_of_its_own_a_problem_stands_behind_the_reasons(editor: Editor) -> None:
    stored = saved(text("notes", "It is red.", PROBLEM_MARK + "Something older."))
    editor.lose_picture()
    failed = editor.do(editor.on(), config=WITHOUT_STATUS, **stored)
    reason, told = lines(failed, "notes") or []
    assert reason == "It is red."
    assert told.startswith(PROBLEM_MARK)
    editor.find_picture()
    answered = editor.do(editor.on(), config=WITHOUT_STATUS, **stored)
    assert lines(answered, "notes") == ["It is red."]
    assert lines(editor.do(editor.on(), config=WITHOUT_STATUS, **stored), "notes") is None


def test_reasons_that_are_newer_than_what_is_stored_are_kept(editor: Editor) -> None:
    asked = text("request", naming(editor.scene))
    reasons = lines(editor.do(asked, config=WITHOUT_STATUS), "notes") or []
    stored = saved(text("notes", "Of another request."))
    stored["drafts"][0]["updated_at"] = "2000-01-01T00:00:00Z"
    editor.lose_picture()
    failed = lines(editor.do(editor.on(), config=WITHOUT_STATUS, **stored), "notes") or []
    assert failed[:-1] == reasons


def test_a_click_that_nobody_can_be_told_about_still_costs_no_suggestion(editor: Editor) -> None:
    config = WITHOUT_STATUS.replace('"notes"', '"caption"')
    first = editor.do(editor.on(), config=config)
    editor.lose_picture()
    assert editor.do(editor.on(), editor.beside, config=config) == first


def test_a_click_while_the_model_loads_is_told_so(
    open_editor: Open, tiny_pipeline: Pipeline
) -> None:
    go = threading.Event()

    def load() -> Pipeline:
        go.wait(60)
        return tiny_pipeline

    editor = open_editor(load, load_wait_s=0.2)
    told = lines(editor.do(editor.on()))
    go.set()
    assert told == ["The model is still loading."]


def test_a_click_when_there_is_too_much_to_do_is_told_so_and_keeps_the_suggestion(
    open_editor: Open, tiny_pipeline: Pipeline
) -> None:
    go, begun = threading.Event(), threading.Event()

    def hold(_: Sequence[str]) -> None:
        begun.set()
        go.wait(60)

    editor = open_editor(lambda: Watched(tiny_pipeline, hold), max_calls=1)
    editor.running.wait_until_ready()
    first = editor.do(editor.on())
    body = editor.body(text("request", "the star"))
    other = threading.Thread(target=lambda: editor.running.post("/predict", body))
    other.start()
    assert begun.wait(60)
    refused = editor.do(editor.on(), editor.beside)
    go.set()
    other.join(60)
    [told] = lines(refused) or []
    assert "already works on 1 calls" in told
    assert regions(refused) == regions(first)


@pytest.mark.parametrize("raw", [None, 7, {"id": 1}, {"id": [1], "data": {"image": "x"}}])
def test_a_click_on_what_is_no_task_is_told_so(editor: Editor, raw: Any) -> None:
    body = {**editor.body(editor.on()), "tasks": [raw]}
    [found] = editor.running.post("/predict", body).json()["results"]
    assert lines(found["result"])

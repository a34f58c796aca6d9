"""The command line: what it prints, what it refuses and how."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from backend.cli import app, main
from backend.commands.journey import JOURNEY
from backend.labelling import parse_config
from backend.settings import Settings
from segzero_ml import masks
from segzero_ml.datasets.scenes import scene_samples
from segzero_ml.presets import PRESETS

COMMANDS = tuple(name for names in JOURNEY.values() for name in names)


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def running(*arguments: object) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    return running


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    scene_samples(1, seed=3)[0].image().save(path)
    return path


def test_help_lists_every_command_once_and_in_the_order_of_the_journey(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    listed = re.findall(r"^  (\w+)  +\w", ran.out.partition("Try it:")[2], re.MULTILINE)
    assert listed == list(COMMANDS)
    assert set(listed) == set(getattr(get_command(app), "commands", {}))


@pytest.mark.parametrize("command", [(), ("corrections",)])
def test_no_summary_of_a_command_is_cut_off_in_a_terminal_of_80_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = run(*command, "--help").out
    assert "..." not in said.partition("COMMAND [ARGS]...")[2]
    assert max(len(line) for line in said.splitlines()) <= 80


def test_the_help_of_train_tells_how_many_corrections_a_round_needs(run: Run) -> None:
    fewest = Settings.model_fields["train_min_corrections"].default
    assert f"Needs {fewest} corrections" in run("train", "--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_explains_itself(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    options = re.findall(r"^  (?:-\w, )?(--[\w-]+).*?(?=^  -|\Z)", ran.out, re.M | re.S)
    assert "--help" in options
    for text in re.split(r"^  (?=-)", ran.out.partition("Options:")[2], flags=re.M)[1:]:
        assert len(text.split()) >= 5, text


def test_help_does_not_wait_for_heavy_libraries() -> None:
    heavy = ("torch", "transformers", "fastapi", "httpx", "numpy", "rich.console")
    code = (
        "import sys; from backend.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print([name for name in {heavy} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_a_wrong_option_is_a_usage_error(run: Run) -> None:
    ran = run("predict", "--nonsense")
    assert ran.code == 2
    assert "Usage:" in ran.err


@pytest.mark.parametrize("labels", [[], ["Fire extinguisher"], ["A & B", "<C>", "D"]])
def test_the_template_is_a_config_that_is_served(run: Run, labels: list[str]) -> None:
    options = [part for label in labels for part in ("--label", label)]
    ran = run("template", *options)
    assert ran.code == 0
    labelling = parse_config(ran.out)
    assert [label.name for label in labelling.labels] == (labels or ["Object"])
    assert labelling.request_fields == ("request",)
    assert labelling.warnings == ()


def test_the_template_for_tasks_without_requests_shows_none(run: Run) -> None:
    assert "$request" not in run("template", "--no-request").out


def test_an_empty_label_is_refused(run: Run) -> None:
    assert run("template", "--label", " ") == (
        1,
        "",
        "Error: A label is empty.\nWhat to do: Give --label a name.\n",
    )


def test_presets_are_listed_for_people_and_programs(run: Run) -> None:
    assert all(name in run("presets").out for name in PRESETS)
    listed = json.loads(run("presets", "--json").out)
    assert list(listed) == list(PRESETS)
    assert listed["tiny"]["memory_gb"] == 1.0


@pytest.mark.parametrize("command", [("predict", "x.png", "the star"), ("eval",), ("serve",)])
def test_an_unknown_preset_is_refused_with_the_names(run: Run, command: tuple[str, ...]) -> None:
    ran = run(*command, "--preset", "huge")
    assert ran.code == 1
    assert "There is no preset 'huge'" in ran.err
    assert "tiny" in ran.err


def test_an_empty_request_is_refused(run: Run, picture: Path) -> None:
    ran = run("predict", picture, "  ")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("Error: The request is empty.\nWhat to do: ")


def test_a_request_of_ten_thousand_characters_is_refused(run: Run, picture: Path) -> None:
    ran = run("predict", picture, "x" * 10_000)
    assert ran.code == 1
    assert "10000 characters long" in ran.err


def test_what_is_no_image_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    ran = run("predict", path, "the star")
    assert ran.code == 1
    assert "notes.png" in ran.err
    assert "not an image" in ran.err


def test_a_missing_image_is_refused(run: Run, tmp_path: Path) -> None:
    ran = run("predict", tmp_path / "none.png", "the star")
    assert ran.code == 1
    assert "none.png cannot be read" in ran.err


def test_an_image_of_200_megapixels_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (20_000, 10_000)).save(path)
    ran = run("predict", path, "the star")
    assert ran.code == 1
    assert "pixels" in ran.err


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--save", "out.txt", "does not end in"),
        ("--mask", "mask.jpg", "does not end in .png"),
        ("--mask", "none/mask.png", "There is no folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    run: Run, picture: Path, option: str, name: str, message: str
) -> None:
    ran = run("predict", picture, "the star", option, picture.parent / name)
    assert ran.code == 1
    assert message in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset", "jsonl"), "needs its folder"),
        (("--dataset", "reasonseg"), "needs its folder"),
        (("--dataset", "scenes", "--root", "."), "drawn, not read"),
        (("--dataset", "jsonl", "--root", "no-such-folder"), "no-such-folder"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_refused(
    run: Run, options: tuple[str, ...], message: str
) -> None:
    ran = run("eval", *options)
    assert ran.code == 1
    assert message in ran.err


def test_a_port_that_is_taken_is_named_with_a_remedy(run: Run) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ran = run("serve", "--port", port)
    assert ran.code == 1
    assert f"Cannot listen on 127.0.0.1, port {port}" in ran.err
    assert "--port" in ran.err


def test_serving_beyond_this_machine_needs_a_login(run: Run) -> None:
    ran = run("serve", "--host", "192.0.2.1", "--port", 0)
    assert ran.code == 1
    assert "SEGZERO_PASSWORD" in ran.err


@pytest.mark.parametrize(
    "command",
    [
        ("serve", "--port", 0),
        ("up", "--port", 0),
        ("connect", "--project", 1, "--url", "http://127.0.0.1:9", "--token", "t"),
    ],
)
def test_a_webhook_secret_without_a_login_is_refused_before_anything_starts(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[object, ...]
) -> None:
    monkeypatch.setenv("SEGZERO_WEBHOOK_SECRET", "hook-secret-1")
    ran = run(*command)
    assert ran.code == 1
    assert "Start training" in ran.err
    assert "Set all three" in ran.err


def test_a_wrong_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGZERO_BATCH_SIZE", "many")
    ran = run("serve")
    assert ran.code == 1
    assert "SEGZERO_BATCH_SIZE" in ran.err


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that answers every call as Label Studio does to a wrong token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"status_code": 401, "detail": "Invalid token."}).encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_wrong_token_is_one_message_with_a_remedy(run: Run, refusing: str) -> None:
    ran = run("connect", "--url", refusing, "--token", "wr0ng", "--project", 1)
    assert ran.code == 1
    assert ran.err.startswith("Error: Label Studio does not accept the token.\nWhat to do: ")
    assert "wr0ng" not in ran.err + ran.out


def test_the_token_may_come_from_the_environment(
    run: Run, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_LABEL_STUDIO_TOKEN", "wr0ng")
    monkeypatch.setenv("SEGZERO_LABEL_STUDIO_URL", refusing)
    assert "does not accept the token" in run("connect", "--project", 1).err


def test_label_studio_being_down_is_one_message_with_a_remedy(run: Run) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        ran = run("connect", "--url", url, "--token", "t", "--project", 1)
    assert ran.code == 1
    assert ran.err.startswith(f"Error: No Label Studio answers at {url}")
    assert "What to do: Start it" in ran.err


def test_connecting_without_an_address_is_a_usage_error(run: Run) -> None:
    ran = run("connect", "--project", 1)
    assert ran.code == 2
    assert "SEGZERO_LABEL_STUDIO_URL" in ran.err


@pytest.mark.slow
def test_a_prediction_as_json_has_exactly_the_promised_keys(run: Run, picture: Path) -> None:
    overlay, mask = picture.with_name("overlay.png"), picture.with_name("mask.png")
    request = scene_samples(1, seed=3)[0].request
    ran = run("predict", picture, request, "--json", "--save", overlay, "--mask", mask)
    assert ran.code == 0
    found = json.loads(ran.out)
    assert set(found) == {"reasoning", "score", "model_version", "segments", "seconds"}
    with Image.open(picture) as opened:
        size = opened.size
    union = np.zeros(size[::-1], dtype=bool)
    for segment in found["segments"]:
        assert set(segment) == {"box_px", "points_px", "score", "rle"}
        assert len(segment["box_px"]) == 4
        assert all(len(point) == 2 for point in segment["points_px"])
        union |= masks.decode(masks.from_json(segment["rle"]))
    with Image.open(mask) as written:
        assert written.mode == "L"
        assert np.array_equal(np.asarray(written) == 255, union)
    with Image.open(overlay) as drawn:
        assert drawn.width >= size[0]
        assert drawn.height > size[1]


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_answer_that_cannot_be_read_is_told_by_the_exit_code(
    run: Run, picture: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    from segzero_ml.pipeline import Pipeline

    breaks_off = replace(PRESETS["tiny"], max_new_tokens=3)
    monkeypatch.setattr(
        "backend.commands.predict.load_pipeline", lambda _: Pipeline.load(breaks_off)
    )
    ran = run("predict", picture, "the red star", *options)
    assert ran.code == 3
    assert "The model's answer could not be used" in ran.err
    if options:
        assert json.loads(ran.out)["segments"] == []
    assert "3: the" in run("predict", "--help").out


@pytest.mark.slow
def test_a_prediction_for_people_shows_the_reasons(run: Run, picture: Path) -> None:
    ran = run("predict", picture, scene_samples(1, seed=3)[0].request)
    assert ran.code == 0
    assert "Score" in ran.out
    assert "tiny@" in ran.out


@pytest.mark.slow
def test_an_evaluation_as_json_has_the_promised_keys(run: Run) -> None:
    ran = run("eval", "--limit", 7, "--seed", 9, "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    promised = {"gIoU", "cIoU", "n_acc", "format_errors", "samples", "by_kind", "convention"}
    assert promised <= set(report)
    assert report["samples"] == 7
    assert len(report["by_kind"]) == 7


@pytest.mark.slow
def test_an_evaluation_for_people_has_a_row_for_each_kind(run: Run) -> None:
    ran = run("eval", "--limit", 7, "--seed", 9)
    assert ran.code == 0
    for kind in ("attribute", "implicit", "absent", "all"):
        assert kind in ran.out

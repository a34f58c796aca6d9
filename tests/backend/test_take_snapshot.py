"""A project's snapshot: corrections from a real Redis, images over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import pytest

from backend.learning.folders import snapshots_folder
from backend.learning.take_snapshot import Waiting, take_snapshot
from segzero_ml.corrections import Correction
from segzero_ml.errors import FetchError, ImageHostError, InputError, LabelStudioError
from tests.backend.corrected import PROJECT, FileServer, World, world
from tests.training_hooks.snapshot_world import Studio, picture
from tests.training_hooks.store_samples import MORNING
from training_hooks.job_errors import ImagesAwayError, JobCancelledError
from training_hooks.loop_reader import LoopReader, note_end
from training_hooks.snapshot import Example, Reason, Snapshot


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture
def here(_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    return _world.use(monkeypatch)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with FileServer.running() as found:
        found.use(monkeypatch)
        yield found


def ours(correction: Correction) -> Correction:
    key = replace(correction.key, label_studio=PROJECT.label_studio, project=PROJECT.project)
    return replace(correction, key=key)


def save(here: World, server: FileServer, first: int, last: int) -> list[Correction]:
    studio = Studio()
    found = [ours(studio.corrected(n, second=n)) for n in range(first, last + 1)]
    server.files.update(studio.files)
    for one in found:
        here.store.upsert(one)
    return found


def take(
    here: World,
    transport: httpx.BaseTransport | None = None,
    between: Callable[[int, int], None] = lambda _, __: None,
    *,
    goes_without: bool = True,
) -> Snapshot:
    reader, mark = LoopReader(here.client), here.store.mark(PROJECT)
    return take_snapshot(
        reader,
        PROJECT,
        here.settings,
        mark,
        between,
        goes_without=goes_without,
        transport=transport,
    )


def both(snapshot: Snapshot) -> tuple[Example, ...]:
    return snapshot.train + snapshot.held_out


def test_all_corrections_come_with_their_images_into_the_projects_folder(
    here: World, server: FileServer
) -> None:
    save(here, server, 1, 130)
    snapshot = take(here)
    assert len(both(snapshot)) == 130
    assert snapshot.folder.parent == snapshots_folder(here.settings, 7)
    assert server.tokens == {f"Token {server.token}"}
    assert {one.origin for one in both(snapshot)} == {"new"}
    server.asked.clear()
    assert take(here).id == snapshot.id
    assert server.asked == []


def test_what_the_last_round_looked_at_is_older(here: World, server: FileServer) -> None:
    save(here, server, 211, 230)
    note_end(here.store, PROJECT, MORNING, here.store.mark(PROJECT))
    save(here, server, 200, 209)  # come late, and were saved before those
    snapshot = take(here)
    assert {one.annotation for one in both(snapshot) if one.origin == "new"} == set(range(200, 210))


def test_each_round_learns_from_other_older_corrections_and_all_tries_of_one_from_the_same(
    here: World, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGZERO_TRAIN_SMALL_ROUND", "0")

    def older() -> set[int]:
        return {one.annotation for one in take(here).train if one.origin == "older"}

    save(here, server, 600, 639)
    note_end(here.store, PROJECT, MORNING, here.store.mark(PROJECT))
    save(here, server, 640, 649)
    first = older()
    assert first
    assert older() == first
    drawn = first.copy()
    for number in range(650, 658):  # one correction alone changes what is drawn besides
        save(here, server, number, number)
        drawn |= older()
    assert len(drawn) > 1.5 * len(first)


def test_an_image_that_is_gone_leaves_its_correction_out(here: World, server: FileServer) -> None:
    save(here, server, 300, 320)
    del server.files["/data/upload/300.png"]
    server.files["/data/upload/301.png"] = picture(9999)
    snapshot = take(here)
    found = {one.annotation: one.reason for one in snapshot.left_out}
    assert found == {300: Reason.NO_IMAGE, 301: Reason.BAD_IMAGE}


def test_while_an_images_host_is_away_a_snapshot_waits_for_what_is_new(
    here: World, server: FileServer
) -> None:
    save(here, server, 700, 720)
    first = take(here)
    note_end(here.store, PROJECT, MORNING, here.store.mark(PROJECT))
    save(here, server, 721, 724)
    server.broken = {f"/data/upload/{n}.png": 503 for n in range(721, 725)}
    port = server.url.rpartition("/")[2]
    with pytest.raises(ImagesAwayError, match=f"4 new corrections .* from {port}.* answered 503"):
        take(here, goes_without=False)
    with pytest.raises(ImagesAwayError):  # not even the last try learns from older ones alone
        take(here)
    server.broken = {"/data/upload/724.png": 429}
    with pytest.raises(ImagesAwayError, match="1 new correction cannot"):
        take(here, goes_without=False)
    server.asked.clear()
    snapshot = take(here)  # what was fetched until then was kept
    assert server.asked == ["/data/upload/724.png"]
    assert snapshot.lost == {Reason.HOST_AWAY.value: 1}
    assert len(both(snapshot)) == len(both(first)) + 3


def test_what_a_round_could_not_look_at_stays_new_and_is_not_waited_for_again(
    here: World, server: FileServer
) -> None:
    save(here, server, 800, 820)
    server.broken = {"/data/upload/805.png": 500}
    mark = here.store.mark(PROJECT)
    snapshot = take(here)
    assert snapshot.unseen == {805}
    note_end(here.store, PROJECT, MORNING, mark, snapshot.unseen)
    reader = LoopReader(here.client)
    assert reader.learnt_after(PROJECT, mark, 10) == ()  # nor does it start a round
    save(here, server, 821, 823)
    still = take(here, goes_without=False)
    assert still.unseen == {805}
    server.broken.clear()
    found = {one.annotation for one in both(take(here)) if one.origin == "new"}
    assert found == {805, 821, 822, 823}
    note_end(here.store, PROJECT, MORNING, here.store.mark(PROJECT))
    news = reader.news(PROJECT)
    assert news is not None
    assert news.annotations == set()


def test_a_correction_that_was_not_seen_and_is_saved_again_is_waited_for(
    here: World, server: FileServer
) -> None:
    save(here, server, 830, 850)
    server.broken = {"/data/upload/830.png": 500}
    note_end(here.store, PROJECT, MORNING, here.store.mark(PROJECT), {830})
    again = Studio().corrected(830, second=9999)
    here.store.upsert(ours(again))
    with pytest.raises(ImagesAwayError):
        take(here, goes_without=False)


def test_a_first_round_whose_images_are_all_away_may_be_tried_again(
    here: World, server: FileServer
) -> None:
    for one in save(here, server, 860, 870):
        server.broken[one.image] = 502
    with pytest.raises(ImagesAwayError, match="11 new corrections"):
        take(here)


def test_before_each_image_it_is_told_how_far_the_snapshot_is_and_may_be_ended(
    here: World, server: FileServer
) -> None:
    save(here, server, 900, 911)
    told: list[tuple[int, int]] = []

    def between(done: int, of: int) -> None:
        told.append((done, of))
        if done == 4:
            raise JobCancelledError("The job was cancelled.")

    with pytest.raises(JobCancelledError):
        take(here, between=between)
    assert told == [(1, 12), (2, 12), (3, 12), (4, 12)]
    assert len(server.asked) == 3


def at(image: str) -> Correction:
    return replace(Studio().corrected(1), image=image)


def test_a_host_that_keeps_it_waiting_is_given_up_until_it_answers_and_others_are_not() -> None:
    now, asked = [0.0], list[str]()

    def fetch(correction: Correction) -> bytes:
        asked.append(correction.image)
        if "slow" in correction.image:
            now[0] += 100
            raise ImageHostError("It did not arrive.", host="slow")
        if "down" in correction.image:
            raise ImageHostError("Nothing answers.", host="down")
        if "gone" in correction.image:
            raise FetchError("There is none.")
        return b"picture"

    fetching = Waiting(fetch, lambda: now[0])

    def ask(image: str) -> str:
        try:
            return fetching(at(image)).decode()
        except FetchError as error:
            return error.message

    assert [ask(f"http://a/slow{n}") for n in range(2)] == ["It did not arrive."] * 2
    assert ask("http://a/gone") == "There is none."  # it answers after all
    assert [ask(f"http://a/slow{n}") for n in range(10)] == ["It did not arrive."] * 10
    assert len(asked) == 2 + 1 + 3
    assert ask("http://b/1.png") == ask("s3://a/1.png") == ask("/data/upload/1.png") == "picture"
    assert {ask(f"http://down/{n}") for n in range(50)} == {"Nothing answers."}
    assert sum("down" in one for one in asked) == 50  # that costs no time


def test_a_damaged_correction_does_not_stop_the_others(here: World, server: FileServer) -> None:
    save(here, server, 400, 420)
    (row,) = here.client.keys("*:annotation:410")
    here.client.hset(row, "body", b"damaged")
    assert len(both(take(here))) == 20


def test_a_project_without_corrections_says_so(here: World, server: FileServer) -> None:
    with pytest.raises(InputError, match="no correction"):
        take(here)


class Tasks:
    """Label Studio's list of tasks; each holds its image itself."""

    def __init__(self, data: dict[int, str]) -> None:
        self.data = data
        self.is_down = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            raise httpx.ConnectError("refused")
        query = json.loads(request.url.params["query"])
        after = query["filters"]["items"][0]["value"]
        row = {"project": 7, "annotations": [], "predictions": []}
        tasks = [
            {"id": task, "data": {"image": value, "request": "the star"}, **row}
            for task, value in sorted(self.data.items())
            if task > after
        ]
        return httpx.Response(200, json={"tasks": tasks[:1], "total": len(tasks)})


def test_images_that_the_tasks_hold_themselves_are_asked_of_label_studio(
    here: World, server: FileServer
) -> None:
    held = {
        n: f"data:image/png;base64,{base64.b64encode(picture(n)).decode()}" for n in range(500, 512)
    }
    for one in save(here, server, 500, 511):
        digest = hashlib.sha256(held[one.task].encode()).hexdigest()
        here.store.delete(one.key)
        key = replace(one.key, annotation=one.key.annotation + 1000)
        here.store.upsert(replace(one, key=key, image=f"inline:sha256:{digest}"))
    tasks = Tasks({number: value for number, value in held.items() if number != 505})
    transport = httpx.MockTransport(tasks)
    tasks.is_down = True
    with pytest.raises(LabelStudioError):
        take(here, transport)
    tasks.is_down = False
    snapshot = take(here, transport)
    assert len(both(snapshot)) == 11
    assert [(one.annotation, one.reason) for one in snapshot.left_out] == [(1505, Reason.NO_IMAGE)]

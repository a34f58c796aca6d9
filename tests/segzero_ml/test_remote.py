from __future__ import annotations

import base64
import io
import json
import logging
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from segzero_ml.errors import ConfigError, RemoteReasonerError
from segzero_ml.geometry import Frame
from segzero_ml.presets import get_preset
from segzero_ml.reasoner import remote
from segzero_ml.reasoner.remote import RemoteReasoner

Picture = Callable[..., Image.Image]
Handler = Callable[[httpx.Request], httpx.Response]
TEXT = "<think>t</think><answer>[]</answer>"
KEY = "sk-very-secret"


def completion(text: object = TEXT, **more: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, **more}],
        "usage": {"completion_tokens": 12},
    }


def reasoner(handler: Handler, preset: str = "qwen2.5-vl-7b", **more: Any) -> RemoteReasoner:
    options = {"api_key": KEY, "backoff_s": 0.0, **more}
    return RemoteReasoner(
        get_preset(preset),
        "http://server:8000/v1/",
        "qwen",
        transport=httpx.MockTransport(handler),
        **options,
    )


def shown(request: httpx.Request) -> Image.Image:
    [image, _] = json.loads(request.content)["messages"][0]["content"]
    data = image["image_url"]["url"].removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize(
    ("preset", "size", "frame"),
    [
        ("visionreasoner-7b", (840, 840), Frame(840, 840)),
        ("qwen2.5-vl-7b", (308, 196), Frame(308, 196)),
        ("qwen3-vl-4b", (288, 192), Frame(1000, 1000)),
    ],
)
def test_the_server_gets_prompt_and_image_and_the_frame_is_known(
    preset: str, size: tuple[int, int], frame: Frame, picture: Picture
) -> None:
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json=completion())

    [output] = reasoner(handler, preset).answer([picture(300, 200)], ["the red mug"])
    [request] = requests
    body = json.loads(request.content)
    assert str(request.url) == "http://server:8000/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert body["model"] == "qwen"
    assert body["temperature"] == 0
    assert body["max_tokens"] == get_preset(preset).max_new_tokens
    [_, text] = body["messages"][0]["content"]
    assert text["text"] == get_preset(preset).prompt.replace("{request}", "the red mug")
    assert shown(request).size == size
    assert (output.text, output.frame, output.tokens) == (TEXT, frame, 12)
    assert output.confidence == 1.0  # the server told no probabilities
    assert output.problem is None


def test_the_confidence_comes_from_the_tokens(picture: Picture) -> None:
    content = [{"token": t, "logprob": math.log(p)} for t, p in [("a", 0.9), ("b", 0.4)]]
    [output] = reasoner(
        lambda _: httpx.Response(200, json=completion(logprobs={"content": content}))
    ).answer([picture(30, 20)], ["it"])
    assert output.confidence == pytest.approx(0.6)


def test_each_request_gets_its_own_answer_though_several_are_under_way(picture: Picture) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=completion(f"{shown(request).width}"))

    images = [picture(28 * n, 112) for n in range(2, 9)]
    outputs = reasoner(handler).answer(images, ["it"] * 7)
    assert [output.text for output in outputs] == [str(28 * n) for n in range(2, 9)]


def test_faults_that_pass_are_tried_again(picture: Picture) -> None:
    replies = iter(
        [
            httpx.Response(503),
            httpx.Response(429),
            httpx.Response(200, json=completion()),
        ]
    )
    [output] = reasoner(lambda _: next(replies)).answer([picture(30, 20)], ["it"])
    assert output.text == TEXT


def test_the_server_may_say_how_long_to_wait_within_reason(
    picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("segzero_ml.reasoner.remote.time.sleep", waits.append)
    replies = iter(
        [
            httpx.Response(429, headers={"Retry-After": "3"}),
            httpx.Response(429, headers={"Retry-After": "9999"}),
            httpx.Response(429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
            httpx.Response(200, json=completion()),
        ]
    )
    reasoner(lambda _: next(replies), retries=3).answer([picture(30, 20)], ["it"])
    assert waits == [3.0, 10.0, 0.0]


def test_a_server_that_is_down_is_named_with_what_to_do(picture: Picture) -> None:
    calls: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(RemoteReasonerError, match=r"http://server:8000/v1 does not answer"):
        reasoner(handler).answer([picture(30, 20)], ["it"])
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (httpx.Response(401), "API key"),
        (httpx.Response(404), "'qwen'"),
        (httpx.Response(400), "status 400"),
        (httpx.Response(302, headers={"Location": "http://evil/"}), "status 302"),
        (httpx.Response(200, text="<html>"), "not JSON"),
        (httpx.Response(200, text="[" * 100_000), "not JSON"),
        (httpx.Response(200, json=[1]), "not a JSON object"),
        (httpx.Response(200, json={}), "not a chat completion"),
        (httpx.Response(200, json={"choices": []}), "not a chat completion"),
        (httpx.Response(200, json=completion(None)), "not a chat completion"),
        (
            httpx.Response(200, json=completion(logprobs={"content": [{"token": "a"}]})),
            "not a chat completion",
        ),
        (httpx.Response(200, content=b" " * (remote.MAX_REPLY_BYTES + 1)), "more than"),
    ],
)
def test_a_useless_reply_is_refused_with_the_reason(
    picture: Picture, reply: httpx.Response, message: str
) -> None:
    with pytest.raises(RemoteReasonerError, match=message):
        reasoner(lambda _: reply).answer([picture(30, 20)], ["it"])


def test_one_failure_among_several_is_told_in_its_place(picture: Picture) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if shown(request).width > 100:
            return httpx.Response(400)
        return httpx.Response(200, json=completion())

    outputs = reasoner(handler).answer([picture(56, 56), picture(280, 56)], ["it", "it"])
    assert outputs[0].problem is None
    assert "status 400" in (outputs[1].problem or "")
    assert outputs[1].text == ""


def test_the_key_is_in_no_message_and_no_log(
    picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(RemoteReasonerError) as caught:
        reasoner(lambda _: httpx.Response(401)).answer([picture(30, 20)], ["it"])
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    "address", ["ftp://x/v1", "server:8000", "http://", "http://me:pw@server/v1", "http://[::1/"]
)
def test_an_address_that_cannot_be_used_is_refused_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match="address") as caught:
        RemoteReasoner(get_preset("tiny"), address, "m")
    assert "pw" not in str(caught.value)


def test_a_key_that_cannot_be_sent_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match="key") as caught:
        RemoteReasoner(get_preset("tiny"), "http://x/v1", "m", api_key="se\ncret")
    assert "cret" not in str(caught.value)


def test_the_version_is_the_servers_model_and_nothing_asked_is_nothing_sent() -> None:
    with reasoner(lambda _: pytest.fail("sent")) as idle:
        assert idle.version == "qwen"
        assert idle.answer([], []) == []

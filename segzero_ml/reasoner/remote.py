"""A reasoner behind an OpenAI-compatible server, such as vLLM or SGLang."""

from __future__ import annotations

import base64
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx
from PIL import Image

from segzero_ml.errors import ConfigError, RemoteReasonerError
from segzero_ml.geometry import Frame
from segzero_ml.presets import Preset
from segzero_ml.reasoner.confidence import confidence_of
from segzero_ml.reasoner.prompts import build_prompt, fit_image, frame_of
from segzero_ml.reasoner.protocol import ReasonerOutput
from segzero_ml.types import ImageSize

MAX_REPLY_BYTES = 16 * 1024**2
MAX_WAIT_S = 10.0
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class RemoteReasoner:
    """Asks a server's chat completions; images travel as data URLs, already resized.

    Args:
        preset: How to ask, and the frame of the answers.
        base_url: Up to and including the version, such as `http://127.0.0.1:8000/v1`.
        model: Name of the model on the server.
        api_key: Sent as a bearer token; never logged or put into a message.
        timeout_s: Longest wait for one answer.
        retries: How often a request is repeated after a fault that may pass.
        backoff_s: Wait before the first repetition; doubles each time.
        concurrency: Requests under way at once.
        logprobs: Ask for the tokens' probabilities, from which the confidence is made.
        transport: Stands in for the network in tests.

    Raises:
        ConfigError: The address is not http or https, or the key cannot be sent.
    """

    def __init__(  # noqa: PLR0913  (each is an option of its own, all but three optional)
        self,
        preset: Preset,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        retries: int = 2,
        backoff_s: float = 0.5,
        concurrency: int = 4,
        logprobs: bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.preset = preset
        self._model = model
        self._retries = retries
        self._backoff_s = backoff_s
        self._concurrency = concurrency
        self._logprobs = logprobs
        self._address = _checked_address(base_url)
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise ConfigError("The reasoning server's API key holds characters that no key has.")
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            follow_redirects=False,  # the key goes to this address and no other
            transport=transport,
        )

    @property
    def version(self) -> str:
        """The model's name on the server."""
        return self._model

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def answer(
        self, images: Sequence[Image.Image], requests: Sequence[str]
    ) -> list[ReasonerOutput]:
        """Answer one request about each image, several at once.

        Args:
            images: Upright, any mode and size.
            requests: One normalised request for each image.

        Returns:
            One output for each request, in their order; where only some failed, those have
            a `problem`.

        Raises:
            RemoteReasonerError: All of them failed.
        """
        pairs = list(zip(images, requests, strict=True))
        if not pairs:
            return []
        with ThreadPoolExecutor(min(self._concurrency, len(pairs))) as pool:
            results = list(pool.map(self._try_one, pairs))
        errors = [result for result in results if isinstance(result, RemoteReasonerError)]
        if len(errors) == len(results):
            raise errors[0]
        return [
            result
            if isinstance(result, ReasonerOutput)
            else ReasonerOutput("", Frame(1.0, 1.0), 0.0, 0, problem=str(result))
            for result in results
        ]

    def _try_one(self, pair: tuple[Image.Image, str]) -> ReasonerOutput | RemoteReasonerError:
        try:
            return self._one(*pair)
        except RemoteReasonerError as error:
            return error

    def _one(self, image: Image.Image, request: str) -> ReasonerOutput:
        fitted = fit_image(image, self.preset.frame)
        reply = self._post(self._payload(fitted, build_prompt(self.preset.prompt, request)))
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"]
            if not isinstance(text, str):
                raise TypeError("the content is not text")
            tokens = _token_chances(choice.get("logprobs"))
            counted = (reply.get("usage") or {}).get("completion_tokens")
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise self._error(f"sent a reply that is not a chat completion ({error!r})") from error
        sure = confidence_of(tokens)
        return ReasonerOutput(
            text=text.strip(),
            frame=frame_of(self.preset.frame, ImageSize(fitted.width, fitted.height)),
            confidence=1.0 if sure is None else sure,
            tokens=counted if isinstance(counted, int) else len(tokens),
        )

    def _payload(self, image: Image.Image, prompt: str) -> dict[str, Any]:
        content = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}},
            {"type": "text", "text": prompt},
        ]
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.preset.max_new_tokens,
            **({"logprobs": True} if self._logprobs else {}),
        }

    def _post(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request, and again after a fault that may pass."""
        for attempt in range(self._retries + 1):
            wait_s = self._backoff_s * 2**attempt
            try:
                status, body, retry_after_s = self._send(payload)
            except httpx.RequestError as error:
                if attempt == self._retries:
                    raise self._error(f"does not answer ({type(error).__name__})") from error
            else:
                if status == httpx.codes.OK:
                    return self._read(body)
                if status not in _RETRY_STATUS or attempt == self._retries:
                    raise self._refused(status)
                wait_s = max(wait_s, retry_after_s)
            time.sleep(min(wait_s, MAX_WAIT_S))
        raise self._error("does not answer")

    def _send(self, payload: Mapping[str, Any]) -> tuple[int, bytes, float]:
        """Status, body (bounded) and the wait in seconds that the server asks for."""
        url = f"{self._address}/chat/completions"
        with self._client.stream("POST", url, json=payload) as response:
            body = bytearray()
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_REPLY_BYTES:
                    raise self._error(f"sent more than {MAX_REPLY_BYTES} bytes")
            return response.status_code, bytes(body), _seconds(response.headers.get("Retry-After"))

    def _read(self, body: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._error("sent a reply that is not JSON") from error
        if not isinstance(reply, dict):
            raise self._error("sent a reply that is not a JSON object")
        return reply

    def _refused(self, status: int) -> RemoteReasonerError:
        remedies = {
            401: "Check the API key.",
            403: "Check the API key and its permissions.",
            404: f"Check the address and that it serves a model named {self._model!r}.",
        }
        return self._error(f"refused with status {status}", remedies.get(status))

    def _error(self, what: str, remedy: str | None = None) -> RemoteReasonerError:
        return RemoteReasonerError(
            f"The reasoning server at {self._address} {what}.",
            remedy or "Check that it runs, and its log.",
        )


def _checked_address(base_url: str) -> str:
    """The address without a slash at its end."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"The reasoning server's address is not valid: {error}.") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise ConfigError(
            "The reasoning server's address must start with http:// or https://, name a host "
            "and hold no password.",
            "Use the form http://127.0.0.1:8000/v1, and give the key apart from it.",
        )
    return str(url).rstrip("/")


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _token_chances(logprobs: Any) -> list[tuple[str, float]]:
    """Text and log probability of each token; empty when the server sends none."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [(str(item["token"]), float(item["logprob"])) for item in content or ()]


def _seconds(retry_after: str | None) -> float:
    """The header in seconds; 0 for dates and for nonsense."""
    try:
        value = float(retry_after or 0)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0

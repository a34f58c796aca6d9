"""One version of a project's model: what is known of it, and its manifest on disk."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from segzero_ml.checks import (
    MAX_NAME_LENGTH,
    check_id,
    check_keys,
    check_list,
    check_sha256,
    check_text,
    read_time,
)
from segzero_ml.errors import InputError, WeightsError

FORMAT: Final = 1
"""Version of the manifest's form."""

MANIFEST: Final = "manifest.json"
MAX_MANIFEST_BYTES: Final = 32 << 20
MAX_GOLDEN: Final = 8
MAX_FIGURES: Final = 200
_MAX_PNG_BYTES: Final = 2 << 20
_MAX_TEXT: Final = 100_000

_ID: Final = re.compile(r"v([1-9][0-9]{0,8})-[0-9a-f]{8}")
_INFO_KEYS: Final = {"preset", "base", "round", "snapshot", "figures", "golden"}


@dataclass(frozen=True, slots=True)
class Golden:
    """A prediction to be reproduced before the version serves.

    Args:
        request: What was asked.
        png: The image as a PNG file; keep it small, it is part of the manifest.
        text: What the reasoner wrote.

    Raises:
        InputError: Blank, or over a limit.
    """

    request: str
    png: bytes = field(repr=False)
    text: str

    def __post_init__(self) -> None:
        check_text("request", self.request, _MAX_TEXT, may_be_blank=False)
        check_text("text", self.text, _MAX_TEXT)
        if not 0 < len(self.png) <= _MAX_PNG_BYTES:
            raise InputError(f"The image of a golden prediction takes 1 to {_MAX_PNG_BYTES} bytes.")


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """Where a version comes from and what it is worth.

    Args:
        preset: Name of the preset that it belongs to.
        base: `version` of the reasoner that it was trained over: a SHA-256 or a commit.
        round: Id of the round that made it; publishing the same adapter of the same round
            again gives the same version.
        snapshot: Id of the data set that it was trained with.
        figures: What was measured, by name; finite numbers.
        golden: Predictions that must be reproduced before it serves.

    Raises:
        InputError: Text is blank or too long, a figure is not finite, or there are too many.
    """

    preset: str
    base: str
    round: str = ""
    snapshot: str = ""
    figures: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    golden: tuple[Golden, ...] = ()

    def __post_init__(self) -> None:
        check_text("preset", self.preset, MAX_NAME_LENGTH, may_be_blank=False)
        check_text("base", self.base, MAX_NAME_LENGTH, may_be_blank=False)
        check_text("round", self.round, MAX_NAME_LENGTH)
        check_text("snapshot", self.snapshot, MAX_NAME_LENGTH)
        if len(self.figures) > MAX_FIGURES or len(self.golden) > MAX_GOLDEN:
            raise InputError(
                f"A version has at most {MAX_FIGURES} figures and {MAX_GOLDEN} golden predictions."
            )
        for name, value in self.figures.items():
            check_text("The name of a figure", name, MAX_NAME_LENGTH, may_be_blank=False)
            _check_figure(name, value)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file must be.

    Args:
        sha256: Of its bytes.
        size: How many there are.
    """

    sha256: str
    size: int

    def __post_init__(self) -> None:
        check_sha256("sha256", self.sha256)
        check_id("size", self.size)


@dataclass(frozen=True, slots=True)
class Version:
    """A version on disk, as its manifest tells.

    Args:
        id: Its name, such as `v3-1a2b3c4d`: a running number and the adapter's hash.
        folder: Where its files are.
        created_at: When it was published; with a time zone.
        files: What each of its files must be, by name.
        info: Where it comes from and what it is worth.
    """

    id: str
    folder: Path
    created_at: datetime
    files: Mapping[str, FileFacts]
    info: VersionInfo

    @property
    def number(self) -> int:
        """Its place in the order of publishing, from 1."""
        return number_of(self.id) or 0


def number_of(version_id: str) -> int | None:
    """The running number in a version's id; None for what is no id."""
    found = _ID.fullmatch(version_id)
    return int(found[1]) if found else None


def make_id(number: int, sha256: str) -> str:
    """The id of the version of this number with an adapter of this hash."""
    return f"v{number}-{sha256[:8]}"


def hash_file(path: Path) -> FileFacts:
    """What a file is.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileFacts(digest, file.tell())


def write_manifest(version: Version) -> bytes:
    """The manifest as JSON, with a hash over itself."""
    body = {
        "format": FORMAT,
        "id": version.id,
        "created_at": version.created_at.isoformat(),
        "files": {
            name: {"sha256": facts.sha256, "size": facts.size}
            for name, facts in sorted(version.files.items())
        },
        "info": _info_as_dict(version.info),
    }
    return json.dumps({**body, "sha256": _hash(body)}, indent=1, allow_nan=False).encode()


def read_manifest(folder: Path) -> Version:
    """Read a version's manifest; its files are not looked at.

    Args:
        folder: Named like the version.

    Raises:
        WeightsError: The manifest is missing, damaged, or another version's.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise InputError("it is too large")
        return _version(folder, json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise WeightsError(
            f"There is no version at {folder}.", "segzero models lists those there are."
        ) from None
    except (OSError, ValueError, RecursionError, InputError) as error:
        why = error.message if isinstance(error, InputError) else type(error).__name__
        raise WeightsError(
            f"The manifest {path} is damaged: {why}",
            "Go back to another version with segzero rollback.",
        ) from error


def golden_as_json(golden: Sequence[Golden]) -> list[dict[str, str]]:
    """Golden predictions as a manifest, or a round's `golden.json`, holds them."""
    return [
        {"request": one.request, "png": base64.b64encode(one.png).decode(), "text": one.text}
        for one in golden
    ]


def read_golden(raw: object) -> tuple[Golden, ...]:
    """Golden predictions from what `golden_as_json` gave.

    Raises:
        InputError: They are none.
    """
    golden = []
    for item in check_list("golden", raw, MAX_GOLDEN):
        one = check_keys("A golden prediction", item, {"request", "png", "text"})
        try:
            png = base64.b64decode(one["png"], validate=True)
        except (TypeError, binascii.Error):
            raise InputError("The image of a golden prediction is not base64.") from None
        golden.append(Golden(one["request"], png, one["text"]))
    return tuple(golden)


def _version(folder: Path, content: object) -> Version:
    keys = {"format", "id", "created_at", "files", "info", "sha256"}
    body = dict(check_keys("The manifest", content, keys))
    if body.pop("sha256") != _hash(body) or body["format"] != FORMAT:
        raise InputError("its own hash, or its form, is another.")
    if body["id"] != folder.name:
        raise InputError(f"it is that of {str(body['id'])[:100]!r}.")
    return Version(
        id=folder.name,
        folder=folder,
        created_at=read_time("created_at", body["created_at"]),
        files={
            name: FileFacts(**check_keys("A file", facts, {"sha256", "size"}))
            for name, facts in _any_keys("files", body["files"]).items()
        },
        info=_read_info(check_keys("info", body["info"], _INFO_KEYS)),
    )


def _info_as_dict(info: VersionInfo) -> dict[str, Any]:
    return {
        "preset": info.preset,
        "base": info.base,
        "round": info.round,
        "snapshot": info.snapshot,
        "figures": {name: float(value) for name, value in info.figures.items()},
        "golden": golden_as_json(info.golden),
    }


def _read_info(raw: dict[str, Any]) -> VersionInfo:
    return VersionInfo(
        preset=raw["preset"],
        base=raw["base"],
        round=raw["round"],
        snapshot=raw["snapshot"],
        figures=MappingProxyType(_any_keys("figures", raw["figures"])),
        golden=read_golden(raw["golden"]),
    )


def _check_figure(name: str, value: object) -> None:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"The figure {name[:100]!r} must be a finite number.")


def _any_keys(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{name} must be an object.")
    return value


def _hash(body: dict[str, Any]) -> str:
    compact = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(compact.encode()).hexdigest()

"""What a snapshot says about itself, and its id."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, get_args

from segzero_ml.checks import read_time
from segzero_ml.errors import ConfigError, DatasetError, InputError
from segzero_ml.verdict import Verdict
from training_hooks.snapshot_options import SnapshotOptions
from training_hooks.snapshot_records import (
    Example,
    LeftOut,
    Origin,
    canonical,
    sha256,
    time_text,
)
from training_hooks.store_values import ProjectKey

FORMAT: Final = 1
"""Version of the files; part of a snapshot's id."""

ID_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class SideCounts:
    """One side in numbers.

    Args:
        examples: Requests with their true answers.
        corrections: Annotations they are of.
        images: Images they are about.
        nothing_here: Examples whose true answer is that nothing matches.
        verdicts: Examples by verdict; every verdict is there.
        origins: Examples by origin; every origin is there.
    """

    examples: int
    corrections: int
    images: int
    nothing_here: int
    verdicts: Mapping[str, int]
    origins: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot says about itself.

    Args:
        id: The snapshot's; 16 hexadecimal digits of its content's hash.
        project: Whose corrections it holds.
        code_version: Version of the program that made it.
        options: How it was put together.
        since: Corrections that the store learnt after it were new; None: all were.
        watermark: When the newest of all corrections looked at was saved.
        created_at: When it was made.
        train: The side to learn from.
        held_out: The side to compare models on.
        left_out: How many were left out, by reason.
    """

    id: str
    project: ProjectKey
    code_version: str
    options: SnapshotOptions
    since: datetime | None
    watermark: datetime
    created_at: datetime
    train: SideCounts
    held_out: SideCounts
    left_out: Mapping[str, int]


def snapshot_id(
    lines: Iterable[str], project: ProjectKey, options: SnapshotOptions, code_version: str
) -> str:
    """The id: a hash over the hashes of all records, in no order, and of how they came about.

    Args:
        lines: As `example_line` and `left_out_record` write them.
        project: Whose they are.
        options: How they were chosen.
        code_version: By which version.
    """
    content = {
        "format": FORMAT,
        "project": asdict(project),
        "options": asdict(options),
        "code_version": code_version,
        "records": sorted(sha256(line) for line in lines),
    }
    return sha256(canonical(content))[:ID_DIGITS]


def count(examples: Iterable[Example]) -> SideCounts:
    """One side in numbers."""
    found = list(examples)
    verdicts = Counter(one.verdict for one in found)
    origins = Counter(one.origin for one in found)
    return SideCounts(
        examples=len(found),
        corrections=len({one.annotation for one in found}),
        images=len({one.image_sha256 for one in found}),
        nothing_here=sum(1 for one in found if not one.true_masks),
        verdicts={verdict.value: verdicts[verdict] for verdict in Verdict},
        origins={origin: origins[origin] for origin in get_args(Origin)},
    )


def count_left_out(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """How many were left out, by reason."""
    return dict(sorted(Counter(one.reason.value for one in left_out).items()))


def left_out_words(counts: Mapping[str, int]) -> str:
    """The same for people: `3 (its image cannot be fetched), 1 (its request cannot be asked)`."""
    return ", ".join(f"{number} ({reason})" for reason, number in counts.items())


def manifest_as_dict(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON's own types; times in ISO 8601 and UTC."""
    since = manifest.since
    return {
        **asdict(manifest),
        "since": None if since is None else time_text(since),
        "watermark": time_text(manifest.watermark),
        "created_at": time_text(manifest.created_at),
    }


def write_manifest(manifest: Manifest) -> str:
    """The manifest as text, with a hash of itself."""
    content = {"format": FORMAT, **manifest_as_dict(manifest)}
    digest = sha256(canonical(content))
    return json.dumps({**content, "sha256": digest}, indent=1)


def read_manifest(text: str) -> Manifest:
    """Read what `write_manifest` wrote.

    Raises:
        DatasetError: It is none, of another format, or a bit of it has changed.
    """
    try:
        read = json.loads(text)
        digest = read.pop("sha256", None)
        if digest != sha256(canonical(read)) or read.pop("format") != FORMAT:
            raise InputError("it has changed, or is of another format.")
        since = read["since"]
        return Manifest(
            **{
                **read,
                "project": ProjectKey(**read["project"]),
                "options": SnapshotOptions(**read["options"]),
                "since": None if since is None else read_time("since", since),
                "watermark": read_time("watermark", read["watermark"]),
                "created_at": read_time("created_at", read["created_at"]),
                "train": SideCounts(**read["train"]),
                "held_out": SideCounts(**read["held_out"]),
            }
        )
    # Whatever lies there instead of a manifest raises one of these.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DatasetError(f"The manifest of a snapshot cannot be read: {error}") from error
    except (InputError, ConfigError) as error:
        raise DatasetError(f"The manifest of a snapshot cannot be read: {error}") from error

"""Which version of a model serves, and which did before: one small file, replaced as a whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from segzero_ml.checks import check_keys, check_list, read_time
from segzero_ml.durable import replace_file
from segzero_ml.errors import InputError, WeightsError
from segzero_ml.versions import number_of

_MAX_BEFORE: Final = 50
_MAX_BYTES: Final = 64 << 10
_MAX_TRIED: Final = 3


@dataclass(frozen=True, slots=True)
class Lineage:
    """What serves and what served before.

    Args:
        champion: Id of the version that serves; None is the base.
        before: Those that it followed, the last first; None is the base.
        since: When that was decided; None where nothing ever was.
    """

    champion: str | None = None
    before: tuple[str | None, ...] = ()
    since: datetime | None = field(default=None, compare=False)

    @property
    def candidates(self) -> tuple[str, ...]:
        """Versions that may serve, three at most: the first one that is sound does, or the base.

        The champion comes first, then those that it followed, back to the base.
        """
        found: list[str] = []
        for version_id in (self.champion, *self.before)[:_MAX_TRIED]:
            if version_id is None:
                break
            found.append(version_id)
        return tuple(found)


def read_lineage(path: Path) -> Lineage:
    """Read what `write_lineage` wrote; nothing but the base where there is no file.

    Raises:
        WeightsError: The file is damaged.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError("It is too large.")
        found = check_keys("It", json.loads(path.read_bytes()), {"champion", "before", "since"})
        ids = [found["champion"], *check_list("before", found["before"], _MAX_BEFORE)]
        if not all(one is None or (isinstance(one, str) and number_of(one)) for one in ids):
            raise InputError("It names what is no version.")
        return Lineage(ids[0], tuple(ids[1:]), read_time("since", found["since"]))
    except FileNotFoundError:
        return Lineage()
    except (OSError, ValueError, RecursionError, InputError) as error:
        raise WeightsError(
            f"{path} does not say which version serves: it is damaged.",
            "Name the version with segzero rollback --to.",
        ) from error


def write_lineage(path: Path, lineage: Lineage) -> None:
    """Put a lineage in the place of the one before, as of now.

    Raises:
        OSError: It could not be written; the one before is still there.
    """
    content = {
        "champion": lineage.champion,
        "before": lineage.before[:_MAX_BEFORE],
        "since": datetime.now(UTC).isoformat(),
    }
    replace_file(path, json.dumps(content).encode())

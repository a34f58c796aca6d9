"""The versions of one project's model on disk, and which of them serves: the champion.

```
<folder>/lock                       held while something is changed
<folder>/versions/v1-1a2b3c4d/      adapter_config.json, adapter_model.safetensors, manifest.json
<folder>/versions/v2-….tmp/         a version being published; never read
<folder>/champion                   which version serves, and those that served before it
```

A version is written beside the others under another name, down to the disk, and then renamed;
the champion is one small file that is replaced as a whole. So a crash at any moment leaves
what was or what is to be, and nothing between. Readers need no lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from segzero_ml.adapter_files import CONFIG_FILE, TENSORS_FILE, AdapterFile, read_adapter
from segzero_ml.durable import copy_synced, make_folder, sync_folder, write_synced
from segzero_ml.errors import InputError, RegistryError, WeightsError
from segzero_ml.lineage import Lineage, read_lineage, write_lineage
from segzero_ml.versions import (
    MANIFEST,
    Version,
    VersionInfo,
    hash_file,
    make_id,
    number_of,
    read_manifest,
    write_manifest,
)

BASE: Final = "base"
"""What the model without any adapter is called where a version is named."""

_FILES: Final = (CONFIG_FILE, TENSORS_FILE)
_VERSIONS: Final = "versions"
_CHAMPION: Final = "champion"
_DRAFT: Final = ".tmp"
_LIST_THEM: Final = "segzero models lists those there are."


class Registry:
    """The versions of one project; several processes may use one folder at the same time.

    Args:
        folder: Made when something is published; local disk, not a network share.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = folder / _VERSIONS
        self._pointer = folder / _CHAMPION

    def publish(self, adapter_folder: Path, info: VersionInfo) -> Version:
        """Keep an adapter as a new version, which does not serve yet.

        Args:
            adapter_folder: As PEFT writes it; only its two files are taken.
            info: Goes into the manifest.

        Returns:
            The version; an earlier one if this adapter of this round was published before.

        Raises:
            WeightsError: The adapter is damaged or of a refused form.
            RegistryError: It cannot be written; nothing of it is left.
        """
        read_adapter(adapter_folder)
        with self._locked(), _translated("keep the new version"):
            make_folder(self._versions)
            self._clear_drafts()
            facts = {name: hash_file(adapter_folder / name) for name in _FILES}
            for known in self.versions():
                if known.info.round == info.round and dict(known.files) == facts:
                    self.verify(known)
                    return known
            version_id = make_id(self._next_number(), facts[TENSORS_FILE].sha256)
            folder = self._versions / version_id
            version = Version(version_id, folder, datetime.now(UTC), facts, info)
            self._write(adapter_folder, version)
        return version

    def versions(self) -> tuple[Version, ...]:
        """Those with a sound manifest, the newest first; their files are not looked at."""
        found = []
        for version_id in self._ids():
            try:
                found.append(read_manifest(self._versions / version_id))
            except WeightsError:
                continue
        return tuple(found)

    def damaged(self) -> tuple[str, ...]:
        """The ids of those whose manifest is missing or damaged, the newest first."""
        sound = {version.id for version in self.versions()}
        return tuple(version_id for version_id in self._ids() if version_id not in sound)

    def version(self, version_id: str) -> Version:
        """The version of this id; its files are not looked at.

        Raises:
            RegistryError: There is none.
            WeightsError: Its manifest is damaged.
        """
        if number_of(version_id) is None or not (self._versions / version_id).is_dir():
            raise RegistryError(f"There is no version {version_id[:100]!r}.", _LIST_THEM)
        return read_manifest(self._versions / version_id)

    @staticmethod
    def verify(version: Version) -> AdapterFile:
        """Check a version in full: its files are those published, and sound.

        Raises:
            WeightsError: A file is missing, changed, damaged, or of a refused form.
        """
        if set(version.files) != set(_FILES):
            raise WeightsError(f"The manifest of {version.id} lists other files.", _LIST_THEM)
        for name, facts in version.files.items():
            path = version.folder / name
            try:
                is_same = not path.is_symlink() and hash_file(path) == facts
            except (OSError, InputError):  # an empty file has no facts
                is_same = False
            if not is_same:
                raise WeightsError(
                    f"{path} is not the file that was published: it is damaged or was changed.",
                    "Go back to another version with segzero rollback.",
                )
        return read_adapter(version.folder)

    @staticmethod
    def check_fits(version: Version, base: str) -> None:
        """Check that a version may be laid over a base: it was made for it, and is sound.

        Args:
            version: Which.
            base: `version` of the reasoner that it is to lie over.

        Raises:
            WeightsError: It was made for another base, or `verify` refuses it.
        """
        if version.info.base != base:
            raise WeightsError(
                f"{version.id} was trained over other weights ({version.info.base[:12]}) than "
                f"those that are served ({base[:12]}).",
                f"Use the preset {version.info.preset} as it was then, or train again.",
            )
        Registry.verify(version)

    def lineage(self) -> Lineage:
        """What serves and what served before, by id; the versions are not looked at.

        Raises:
            WeightsError: The file that says so is damaged.
        """
        return read_lineage(self._pointer)

    def champion(self) -> Version | None:
        """The version that is to serve; None is the base.

        Raises:
            WeightsError: The file that says so, or the version's manifest, is damaged.
            RegistryError: The version it names is gone.
        """
        champion = self.lineage().champion
        return None if champion is None else self.version(champion)

    def promote(self, version_id: str, still_valid: Callable[[], None] = lambda: None) -> Version:
        """Make a version the champion.

        Args:
            version_id: Which.
            still_valid: Called last before the change, while nobody else can make one; raises
                what this is to raise if the one who promotes has lost the right to.

        Raises:
            RegistryError: There is no such version, or the change cannot be written.
            WeightsError: The version is damaged.
        """
        with self._locked():
            version = self.version(version_id)
            self.verify(version)
            lineage = self.lineage()
            still_valid()
            if lineage.champion != version_id:
                self._point(Lineage(version_id, (lineage.champion, *lineage.before)))
        return version

    def rollback(self, to: str | None = None, *, dry_run: bool = False) -> Version | None:
        """Go back to the version that served before the champion, or to one by name.

        Going back forgets what is gone back from, so that the next call goes further back.

        Args:
            to: A version, or `BASE` for the model without any; None for the one before.
            dry_run: Check everything and change nothing.

        Returns:
            What serves now, or would; None is the base.

        Raises:
            RegistryError: There is no such version, none before, or it cannot be written.
            WeightsError: The version is damaged.
        """
        nothing = RegistryError("There is nothing to go back to: the base serves.", _LIST_THEM)
        if not self.folder.is_dir():
            raise nothing
        with self._locked():
            lineage = self.lineage() if to is None else self._lineage_or_none()
            if to is None:
                if not lineage.before:
                    raise nothing
                target, before = lineage.before[0], lineage.before[1:]
            else:
                target = None if to == BASE else to
                before = lineage.before
                if target in before:
                    before = before[before.index(target) + 1 :]
            version = None
            if target is not None:
                version = self.version(target)
                self.verify(version)
            if not dry_run:
                self._point(Lineage(target, before))
        return version

    def _lineage_or_none(self) -> Lineage:
        try:
            return self.lineage()
        except WeightsError:  # going back by name is the way out of this
            return Lineage()

    def _point(self, lineage: Lineage) -> None:
        with _translated("change which version serves"):
            write_lineage(self._pointer, lineage)

    def _write(self, adapter_folder: Path, version: Version) -> None:
        draft = version.folder.with_name(version.id + _DRAFT)
        try:
            draft.mkdir(mode=0o700)
            for name, facts in version.files.items():
                copy_synced(adapter_folder / name, draft / name)
                if hash_file(draft / name) != facts:
                    raise WeightsError(
                        f"{adapter_folder / name} changed while it was copied.", "Try again."
                    )
            write_synced(draft / MANIFEST, write_manifest(version))
            sync_folder(draft)
            draft.rename(version.folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync_folder(self._versions)

    def _ids(self) -> list[str]:
        try:
            names = [entry.name for entry in self._versions.iterdir() if entry.is_dir()]
        except OSError:
            return []
        return sorted((name for name in names if number_of(name)), key=_newest_first)

    def _next_number(self) -> int:
        return max((number_of(version_id) or 0 for version_id in self._ids()), default=0) + 1

    def _clear_drafts(self) -> None:
        for entry in self._versions.iterdir():
            if entry.name.endswith(_DRAFT):
                shutil.rmtree(entry)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with _translated("use its folder"):
            make_folder(self.folder)
            fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with _translated("lock its folder"):
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _newest_first(version_id: str) -> tuple[int, str]:
    return (-(number_of(version_id) or 0), version_id)


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RegistryError(
            f"The model registry could not {doing}: {error.strerror or error}.",
            "Check the free space and the permissions of the data folder; what served serves on.",
        ) from error

"""The images of a project's snapshots: each fetched once, kept by its hash, and linked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from segzero_ml.corrections import Correction, CorrectionKey
from segzero_ml.durable import copy_synced, make_folder
from segzero_ml.errors import ImageError
from segzero_ml.images import ImageLimits, decode_image, file_kind
from segzero_ml.types import ImageSize
from training_hooks.snapshot_files import IMAGES, put


class ImagePool:
    """The images of a project's snapshots: each fetched once, and kept by its hash.

    Args:
        folder: Of the project's snapshots.
        fetch: Gets the file of a correction's image.
        limits: What an image may measure.

    Raises:
        OSError: There can be no such folder.
    """

    def __init__(
        self, folder: Path, fetch: Callable[[Correction], bytes], limits: ImageLimits
    ) -> None:
        self._folder = folder / IMAGES
        self._fetch = fetch
        self._limits = limits
        self._checked: dict[str, tuple[str, ImageSize]] = {}
        self._fetched: dict[CorrectionKey, str] = {}
        make_folder(self._folder)

    def hash_of(self, correction: Correction) -> str:
        """SHA-256 of a correction's image, which is fetched only if nobody knows it.

        Raises:
            FetchError: The image cannot be had.
            ImageError: It is no image, or over a limit.
            OSError: It cannot be kept.
        """
        known = correction.image_sha256 or self._fetched.get(correction.key)
        if known is None:
            known = self._store(self._fetch(correction))
            self._fetched[correction.key] = known
        return known

    def take(self, correction: Correction, into: Path) -> tuple[str, str, ImageSize]:
        """Put a correction's image into a draft.

        Returns:
            (SHA-256, its file relative to the draft, size of the upright image)

        Raises:
            FetchError: The image cannot be had.
            ImageError: It is no image, over a limit, or not the one that was annotated.
            OSError: It cannot be kept.
        """
        sha256 = self.hash_of(correction)
        is_here = sha256 in self._checked or self._find(sha256)
        if not is_here and self._store(self._fetch(correction)) != sha256:
            raise ImageError("The image has changed since it was annotated.")
        name, size = self._checked[sha256]
        if correction.size not in (None, size):
            raise ImageError("The image is of another size than its masks.")
        _link(self._folder / name, into / IMAGES / name)
        return sha256, f"{IMAGES}/{name}", size

    def _find(self, sha256: str) -> bool:
        """Whether an earlier snapshot left the image here, undamaged."""
        for path in self._folder.glob(f"{sha256}.*"):
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() == sha256:
                self._checked[sha256] = (path.name, self._size(data))
                return True
        return False

    def _store(self, data: bytes) -> str:
        size = self._size(data)
        sha256 = hashlib.sha256(data).hexdigest()
        name = f"{sha256}.{file_kind(data, self._limits).format.lower()}"
        if sha256 not in self._checked:
            put(self._folder / name, data)
            self._checked[sha256] = (name, size)
        return sha256

    def _size(self, data: bytes) -> ImageSize:
        """Decodes it all: damage is to be found now, not in the middle of a round."""
        return ImageSize(*decode_image(data, self._limits).size)


def _link(source: Path, target: Path) -> None:
    """One file under two names, or two files where the disk knows no hard links."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        copy_synced(source, target)

"""Images of 200 megapixels in a few kilobytes: refused by their header."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from segzero_ml.errors import ImageError
from segzero_ml.images import FORMATS, decode_image, read_size

BIG = (20_000, 10_000)


def _small(kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (48, 32), "red").save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + body))
    return struct.pack(">I", len(body)) + name + body + checksum


def _big_png() -> bytes:
    """A whole, valid PNG of 200 megapixels in a few kilobytes."""
    width, height = BIG
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width // 8 + 1) * height), 9)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _big_jpeg() -> bytes:
    small = _small("JPEG")
    return small.replace(struct.pack(">HH", 32, 48), struct.pack(">HH", BIG[1], BIG[0]))


def _big_gif() -> bytes:
    small = _small("GIF")
    return small.replace(struct.pack("<HH", 48, 32), struct.pack("<HH", *BIG))


def _big_bmp() -> bytes:
    small = _small("BMP")
    return small.replace(struct.pack("<ii", 48, 32), struct.pack("<ii", *BIG))


def _big_tiff() -> bytes:
    small = _small("TIFF")
    for tag, old, new in ((256, 48, BIG[0]), (257, 32, BIG[1])):
        for kind, letter in ((3, "HH"), (4, "I")):
            entry = struct.pack("<HHI", tag, kind, 1)
            values = (old, 0) if letter == "HH" else (old,)
            wanted = (new, 0) if letter == "HH" else (new,)
            small = small.replace(
                entry + struct.pack("<" + letter, *values),
                entry + struct.pack("<" + letter, *wanted),
            )
    return small


def _big_webp() -> bytes:
    """WebP sides end at 16,383; 16,000 x 12,500 are 200 megapixels."""
    small = _small("WEBP", lossless=True)
    place = small.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", small, place)
    bits = (bits & ~0xFFFFFFF) | 15_999 | (12_499 << 14)
    return small[:place] + struct.pack("<I", bits) + small[place + 4 :]


BOMBS = {
    "PNG": _big_png,
    "JPEG": _big_jpeg,
    "GIF": _big_gif,
    "BMP": _big_bmp,
    "TIFF": _big_tiff,
    "WEBP": _big_webp,
}

# A child's `ru_maxrss` starts at the peak of its parent, and would hide what it takes itself.
_MEASURE = """
import sys
from pathlib import Path
from segzero_ml.errors import ImageError
from segzero_ml.images import decode_image
data = Path(sys.argv[1]).read_bytes()
for small in sys.argv[2:]:
    decode_image(Path(small).read_bytes())  # decoders are loaded before the measurement
def kibibytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew at what is in use
before = kibibytes("VmRSS:")
try:
    decode_image(data)
except ImageError as error:
    print(error)
print(kibibytes("VmHWM:") - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux tells it"
)
@pytest.mark.parametrize("kind", FORMATS)
def test_two_hundred_megapixels_are_refused_before_they_are_decoded(
    kind: str, tmp_path: Path
) -> None:
    bomb, small = tmp_path / "bomb", tmp_path / "small"
    bomb.write_bytes(BOMBS[kind]())
    small.write_bytes(_small(kind))
    assert bomb.stat().st_size < 100_000
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(bomb), str(small)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    message, kibibytes = done.stdout.strip().splitlines()
    assert "limit of 50,000,000 pixels" in message
    assert int(kibibytes) < 20 * 1024


@pytest.mark.parametrize("kind", FORMATS)
def test_the_size_of_a_bomb_is_not_given_either(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[kind]())
    with pytest.raises(ImageError, match="limit of 50,000,000 pixels"):
        read_size(path)


def test_a_hundred_megapixels_are_refused_without_a_warning() -> None:
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b"")
    with pytest.raises(ImageError, match="limit of 50,000,000 pixels"):
        decode_image(data)

"""PNG files, decompressed by ISA-L and only as far down as they are needed.

Much of the time that decoding a PNG takes is decompression. ISA-L needs less than half of zlib's time for it, and a
training crop needs no row below its own. What has been decompressed is handed to a decoder as a PNG that stores it as
it is, and so gives the same pixels.
"""

from __future__ import annotations

import struct

from isal import isal_zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Values of a pixel for each of the format's colour types."""
_WITHOUT_EFFECT = {b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"hIST", b"pHYs", b"tIME"}
"""Chunks that leave colours as they are stored."""
_LONGEST = 1_000_000
"""Pixels in a row or column that libpng, within OpenCV, decodes."""
_BLOCK = 65_535
"""Bytes in a stored block of a zlib stream, at most."""

_Chunks = list[tuple[bytes, memoryview]]


class Png:
    """A whole PNG file whose rows lie in their order.

    Attributes:
        size: Height and width.
        is_plain: Whether its pixels are the 8-bit RGB that it stores, upright and opaque, and OpenCV can decode it.
    """

    def __init__(self, header: bytes, before: _Chunks, pixels: _Chunks, after: _Chunks):
        self._header = header
        self._compressed = b"".join(content for _, content in pixels)
        width, height, depth, colour = struct.unpack_from(">IIBB", header)
        self.size: tuple[int, int] = (height, width)
        self._row = 1 + (width * _CHANNELS[colour] * depth + 7) // 8
        usual = (depth, *header[9:]) == (8, 2, 0, 0, 0) and max(self.size) <= _LONGEST
        self.is_plain = usual and {kind for kind, _ in before + after} <= _WITHOUT_EFFECT
        self._before, self._after = ([], []) if self.is_plain else (before, after)

    @classmethod
    def parse(cls, file: bytes) -> Png | None:
        """The PNG that a file's content is; none if it is no PNG, damaged, interlaced or animated."""
        chunks = _chunks(file)
        kinds = [kind for kind, _ in chunks]
        if b"IDAT" not in kinds or kinds[0] != b"IHDR" or len(chunks[0][1]) != 13:
            return None
        header = bytes(chunks[0][1])
        first, last = kinds.index(b"IDAT"), kinds.index(b"IDAT") + kinds.count(b"IDAT")
        if set(kinds[first:last]) != {b"IDAT"} or header[9] not in _CHANNELS:
            return None
        if header[12] or b"acTL" in kinds:  # interlaced, animated
            return None
        return cls(header, chunks[1:first], chunks[first:last], chunks[last:])

    def stored(self, rows: int | None = None) -> bytes | None:
        """The file, its pixels not compressed, and none below the first `rows`; nothing if it is damaged.

        Chunks without effect are left out where there are no others.
        """
        rows = self.size[0] if rows is None else rows
        expected = rows * self._row
        try:
            content = isal_zlib.decompressobj().decompress(self._compressed, expected)
        except isal_zlib.error:  # type: ignore[misc]  # it is declared to be an instance
            return None
        if len(content) < expected or max(content[:: self._row]) > 4:  # no such filter
            return None
        header = self._header[:4] + struct.pack(">I", rows) + self._header[8:]
        pixels = _chunk(b"IDAT", *_stream(memoryview(content)))
        before, after = ([part for one in side for part in _chunk(*one)] for side in (self._before, self._after))
        return b"".join((_SIGNATURE, *_chunk(b"IHDR", header), *before, *pixels, *after, *_chunk(b"IEND")))


def _chunks(file: bytes) -> _Chunks:
    """Kind and content of every chunk before the last; none at all if one is cut off or its checksum is wrong."""
    found: _Chunks = []
    start, view = len(_SIGNATURE), memoryview(file)
    while file.startswith(_SIGNATURE) and start + 12 <= len(file):
        length, kind = struct.unpack_from(">I4s", file, start)
        end = start + 8 + length
        if view[end : end + 4] != struct.pack(">I", isal_zlib.crc32(view[start + 4 : end])):
            return []
        if kind == b"IEND":
            return found
        found.append((kind, view[start + 8 : end]))
        start = end + 4
    return []


def _chunk(kind: bytes, *content: bytes | memoryview) -> list[bytes | memoryview]:
    check = isal_zlib.crc32(kind)
    for part in content:
        check = isal_zlib.crc32(part, check)
    return [struct.pack(">I", sum(map(len, content))), kind, *content, struct.pack(">I", check)]


def _stream(content: memoryview) -> list[bytes | memoryview]:
    """A zlib stream that holds bytes as they are."""
    parts: list[bytes | memoryview] = [b"\x78\x01"]
    for start in range(0, len(content), _BLOCK):
        block = content[start : start + _BLOCK]
        is_last = start + _BLOCK >= len(content)
        parts += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block]
    return [*parts, struct.pack(">I", isal_zlib.adler32(content))]

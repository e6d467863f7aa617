"""PNG files, decompressed by ISA-L and only down to the last row that is needed.

Decompression takes much of the time in which a PNG is decoded. ISA-L needs less than half of zlib's time for it, and a
training crop needs no row below its own. The decompressed rows are handed to a decoder as a PNG without compression,
which gives the same pixels.
"""

from __future__ import annotations

import struct

from isal import isal_zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""The format's colour types → channels of a pixel."""
_WITHOUT_EFFECT = {b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"hIST", b"pHYs", b"tIME"}
"""Kinds of chunk that do not change the stored colours."""
_LONGEST = 1_000_000
"""Most pixels in a row or column that OpenCV's libpng decodes."""
_BLOCK = 65_535
"""Most bytes in an uncompressed block of a zlib stream."""

_Chunks = list[tuple[bytes, memoryview]]


class Png:
    """A complete PNG file that is not interlaced.

    Attributes:
        size: Height and width.
        is_plain: Whether it stores opaque, upright 8-bit RGB pixels that OpenCV decodes exactly.
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
        """Read the chunks of a file; None if it is no PNG, or is damaged, interlaced or animated."""
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
        """The first rows as a PNG file without compression; None if the pixels are damaged.

        A plain file loses its chunks beside the pixels, which have no effect on them.

        Args:
            rows: Number of rows; None for all.
        """
        rows = self.size[0] if rows is None else rows
        expected = rows * self._row
        try:
            content = isal_zlib.decompressobj().decompress(self._compressed, expected)
        except isal_zlib.error:  # type: ignore[misc]  # its stubs declare an instance, not a class
            return None
        if len(content) < expected or max(content[:: self._row]) > 4:  # the filters of rows are numbered 0 to 4
            return None
        header = self._header[:4] + struct.pack(">I", rows) + self._header[8:]
        pixels = _chunk(b"IDAT", *_stream(memoryview(content)))
        before, after = ([part for chunk in side for part in _chunk(*chunk)] for side in (self._before, self._after))
        return b"".join((_SIGNATURE, *_chunk(b"IHDR", header), *before, *pixels, *after, *_chunk(b"IEND")))


def _chunks(file: bytes) -> _Chunks:
    """Kind and content of every chunk before the end chunk; empty if one is cut off or has a wrong checksum."""
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
    """The parts of a zlib stream that holds the content without compression."""
    parts: list[bytes | memoryview] = [b"\x78\x01"]
    for start in range(0, len(content), _BLOCK):
        block = content[start : start + _BLOCK]
        is_last = start + _BLOCK >= len(content)
        parts += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block]
    return [*parts, struct.pack(">I", isal_zlib.adler32(content))]

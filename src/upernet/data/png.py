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
_BLOCK = 65_535
"""Bytes in a stored block of a zlib stream, at most."""


class Png:
    """A whole PNG file whose rows lie in their order.

    Attributes:
        size: Height and width.
        is_plain: Whether its pixels are the 8-bit RGB that it stores, upright and opaque.
    """

    def __init__(self, chunks: list[tuple[bytes, bytes]]):
        width, height, depth, colour = struct.unpack_from(">IIBB", chunks[0][1])
        self.size: tuple[int, int] = (height, width)
        self._row = 1 + (width * _CHANNELS[colour] * depth + 7) // 8
        self._compressed = b"".join(content for kind, content in chunks if kind == b"IDAT")
        first = next(i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT")
        self._header, self._before = chunks[0][1], chunks[1:first]
        self._after = [chunk for chunk in chunks[first:] if chunk[0] != b"IDAT"]
        others = {kind for kind, _ in self._before + self._after[:-1]}
        self.is_plain = (depth, colour) == (8, 2) and others <= _WITHOUT_EFFECT

    @classmethod
    def of(cls, file: bytes) -> Png | None:
        """A file's content; nothing if it is no such PNG."""
        chunks, start = [], len(_SIGNATURE)
        while file.startswith(_SIGNATURE) and start + 12 <= len(file):
            length, kind = struct.unpack_from(">I4s", file, start)
            chunks.append((kind, file[start + 8 : start + 8 + length]))
            start += 12 + length
            if kind == b"IEND":
                kinds, header = [kind for kind, _ in chunks], chunks[0][1]
                is_sound = kinds[0] == b"IHDR" and len(header) == 13 and b"IDAT" in kinds and start <= len(file)
                # Neither interlaced nor animated.
                if is_sound and header[9] in _CHANNELS and header[12] == 0 and b"acTL" not in kinds:
                    return cls(chunks)
                break
        return None

    def stored(self, rows: int | None = None) -> bytes | None:
        """The file, its pixels not compressed, and none below the first `rows`; nothing if it is damaged."""
        rows = self.size[0] if rows is None else rows
        expected = rows * self._row
        try:
            content = isal_zlib.decompressobj().decompress(self._compressed, expected)
        except isal_zlib.error:  # type: ignore[misc]  # it is declared to be an instance
            return None
        if len(content) < expected or max(content[:: self._row]) > 4:  # no such filter
            return None
        header = self._header[:4] + struct.pack(">I", rows) + self._header[8:]
        chunks = [(b"IHDR", header), *self._before, (b"IDAT", _store(content)), *self._after]
        return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = isal_zlib.crc32(content, isal_zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", check)))


def _store(content: bytes) -> bytes:
    """A zlib stream that holds bytes as they are."""
    parts = [b"\x78\x01"]
    for start in range(0, len(content), _BLOCK):
        block = content[start : start + _BLOCK]
        is_last = start + _BLOCK >= len(content)
        parts += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join((*parts, struct.pack(">I", isal_zlib.adler32(content))))

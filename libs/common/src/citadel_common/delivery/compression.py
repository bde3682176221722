"""Decoders of compressed messages, with a limit: a few kilobytes on the queue could become gigabytes in a worker."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from kombu import compression

from citadel_common.errors import PayloadTooLarge

MOST_BYTES = 16 * 2**20
"""Bytes of one decompressed body: as much as the API takes in one request by default."""


class Decompressor(Protocol):
    """An incremental decompressor of the standard library."""

    @property
    def eof(self) -> bool:
        """Whether the end of the compressed stream has been reached."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return at most `max_length` decompressed bytes."""


_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS
"""Kombu's gzip has the format of zlib; clients in other languages send that of gzip."""
_DECOMPRESSORS: dict[str, tuple[Callable[[bytes], bytes], Callable[[], Decompressor]]] = {
    "application/x-gzip": (zlib.compress, lambda: zlib.decompressobj(_ZLIB_OR_GZIP)),
    "application/x-bz2": (bz2.compress, bz2.BZ2Decompressor),
    "application/x-lzma": (lzma.compress, lambda: lzma.LZMADecompressor(memlimit=MOST_BYTES * 4)),
}
_ALIASES = {
    "application/x-gzip": ["gzip", "zlib"],
    "application/x-bz2": ["bzip2", "bzip"],
    "application/x-lzma": ["lzma", "xz"],
}
READABLE = frozenset({*_ALIASES, *(alias for aliases in _ALIASES.values() for alias in aliases)})
"""Names of the compressions that workers can read."""


def install() -> None:
    """Replace kombu's decoders; a message of another compression cannot be decoded."""
    for name in compression.encoders():
        if name not in _DECOMPRESSORS:
            compression.register(compression.get_encoder(name)[0], _unknown, name)
    for name, (compress, new) in _DECOMPRESSORS.items():
        compression.register(compress, _bounded(new), name, aliases=_ALIASES[name])


def _bounded(new: Callable[[], Decompressor]) -> Callable[[bytes], bytes]:
    def decompress(data: bytes) -> bytes:
        stream = new()
        found = stream.decompress(data, MOST_BYTES)
        if not stream.eof:
            raise PayloadTooLarge(f"the compressed body has no end within {MOST_BYTES} bytes")
        return found

    return decompress


def _unknown(_: bytes) -> bytes:
    raise PayloadTooLarge("workers decompress gzip, bzip2 and lzma only, whose size they can bound")

"""CUDA kernels inside a shared library: those of other architectures are zeroed, so that it compresses well."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_SECTION = ".nv_fatbin"
_MAGIC = 0xBA55ED50


def keep_architecture(library: bytes, architecture: int) -> bytes:
    """Returns an ELF library (64 bits) whose kernels for other architectures than, say, 90 are zeros.

    CUDA finds an entry by its header, which stays: only GPUs of that architecture can run the result.
    """
    content = bytearray(library)
    for begin, end in _sections(library, _SECTION):
        for at, size, found in _entries(library, begin, end):
            if found != architecture:
                content[at : at + size] = bytes(size)
    return bytes(content)


def architectures(library: bytes) -> dict[int, int]:
    """Returns the bytes of kernels in a library, by architecture."""
    found: dict[int, int] = {}
    for begin, end in _sections(library, _SECTION):
        for _, size, architecture in _entries(library, begin, end):
            found[architecture] = found.get(architecture, 0) + size
    return found


def _sections(library: bytes, wanted: str) -> Iterator[tuple[int, int]]:
    """Yields the places of an ELF file's sections of some name."""
    table, size, count, names = struct.unpack_from("<Q10xHHH", library, 40)
    rows = [struct.unpack_from("<IIQQQQ", library, table + i * size) for i in range(count)]
    texts = rows[names][4]
    for name, _, _, _, offset, length in rows:
        begin = texts + name
        if library[begin : library.index(0, begin)].decode() == wanted:
            yield offset, offset + length


def _entries(library: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields place, size and architecture of each kernel image; containers are padded, with a magic word first."""
    at = begin
    while at + 16 <= end:
        magic, _, header, size = struct.unpack_from("<IHHQ", library, at)
        if magic != _MAGIC:
            at += 8
            continue
        place, at = at + header, at + header + size
        while place + 64 <= at:
            _, _, header, length = struct.unpack_from("<HHIQ", library, place)
            (architecture,) = struct.unpack_from("<I", library, place + 28)
            if not 0 < header <= 4096:
                break
            yield place + header, length, architecture
            place += header + length

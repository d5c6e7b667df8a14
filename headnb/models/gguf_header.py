"""Check of a GGUF file's header before transformers reads it, because that reader trusts every count in the header.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from pathlib import Path

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # type -> bytes per value
_INTEGERS = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_TEXT, _ARRAY = 8, 9


def gguf_counts(path: Path) -> dict[str, int]:
    """Name -> value of the integers in the header, such as `llama.block_count`.

    Raises:
        HeadnbError: a count in the header exceeds the file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Header(content).counts()
    except (OSError, ValueError, struct.error) as error:
        raise HeadnbError(f"{path} cannot be read as a GGUF model: {error}") from error


class _Header:
    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 8  # after the magic bytes and the version

    def counts(self) -> dict[str, int]:
        if self._content[:4] != b"GGUF":
            raise ValueError("it does not start with the bytes GGUF")
        tensors, entries = self._number("<Q"), self._number("<Q")
        integers: dict[str, int] = {}
        for _ in range(self._within(entries, 13)):
            name, kind = self._text(), self._number("<I")
            if kind in _INTEGERS:
                integers[name] = self._number(_INTEGERS[kind])
            else:
                self._skip(kind)
        self._within(tensors, 24)
        return integers

    def _skip(self, kind: int) -> None:
        if kind == _TEXT:
            self._text()
        elif kind == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner == _TEXT:
                for _ in range(self._within(count, 8)):
                    self._text()
            else:  # arrays of arrays do not occur in models
                self._move(count * self._size(inner))
        else:
            self._move(self._size(kind))

    def _size(self, kind: int) -> int:
        if kind not in _SIZES:
            raise ValueError(f"its header has a value of the unknown type {kind}")
        return _SIZES[kind]

    def _within(self, count: int, least: int) -> int:
        """The count, if that many entries of at least `least` bytes can follow."""
        if count * least > len(self._content) - self._at:
            raise ValueError(f"its header declares {count} entries, more than the file can contain")
        return count

    def _move(self, length: int) -> int:
        start = self._at
        self._at += self._within(length, 1)
        return start

    def _number(self, form: str) -> int:
        number: int = struct.unpack_from(form, self._content, self._move(struct.calcsize(form)))[0]
        return number

    def _text(self) -> str:
        length = self._number("<Q")
        start = self._move(length)
        return self._content[start : start + min(length, 100)].decode(errors="replace")

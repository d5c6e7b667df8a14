"""The files of a Zarr group that may come from a stranger: what they would become in memory is known before it is made.

headnb writes one chain of codecs: numbers or text, compressed by Zstandard, and a CRC32C. Other chains are not read. A
Zstandard frame says in its first bytes how much it becomes, so a small file that would fill the memory is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zarr.storage import LocalStore

from headnb.errors import HeadnbError
from headnb.hub import user_path

if TYPE_CHECKING:
    from pathlib import Path

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

MAX_BYTES = 2**28  # of one file, as it is and decompressed
_CHAINS = [(first, "zstd", *last) for first in ("bytes", "vlen-utf8") for last in ((), ("crc32c",))]
_ZSTD = b"\x28\xb5\x2f\xfd"


class CheckedStore(LocalStore):
    """A folder whose files are regular ones, and neither they nor what they hold is too large."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """As Zarr says; raises HeadnbError where the file is refused."""
        path = self.root / key
        if path.exists():
            _check_file(user_path(path), compressed=path.name != "zarr.json")
        return await super().get(key, prototype, byte_range)


def check_codecs(path: Path, name: str, array: Any) -> None:
    """Raise HeadnbError unless the array `name` of the group at `path` is stored as headnb stores arrays."""
    chain = tuple(codec.to_dict()["name"] for codec in array.metadata.codecs)
    if chain not in _CHAINS:
        raise HeadnbError(f"{path} is damaged: {name} is stored by {', '.join(chain):.80}, not as headnb stores arrays")


def _check_file(path: Path, *, compressed: bool) -> None:
    size = path.stat().st_size
    if compressed:
        with path.open("rb") as file:
            size = max(size, _decompressed(file.read(18), path))
    if size > MAX_BYTES:
        raise HeadnbError(f"{path} is damaged: it would take {size / 2**20:.0f} MB, more than {MAX_BYTES // 2**20} MB")


def _decompressed(head: bytes, path: Path) -> int:
    """How many bytes a Zstandard frame becomes, as its header says (RFC 8878, section 3.1.1.1).

    Raises:
        HeadnbError: it does not say so, or is no frame.
    """
    if head[:4] == _ZSTD and len(head) > 5:
        descriptor = head[4]
        single = descriptor >> 5 & 1
        start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
        length = (single, 2, 4, 8)[descriptor >> 6]
        if length and len(head) >= start + length:
            return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)
    raise HeadnbError(f"{path} is damaged: it does not say how large it is")

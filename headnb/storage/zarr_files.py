"""Reader of untrusted Zarr groups, which checks the decompressed size of each file first.

headnb writes one codec chain: numbers or text, Zstandard, CRC32C. Other chains are refused. The header of a Zstandard
frame states the decompressed size, so a small file that would fill the memory is refused.
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

MAX_BYTES = 2**28  # of one file, compressed and decompressed
_CHAINS = [(first, "zstd", *last) for first in ("bytes", "vlen-utf8") for last in ((), ("crc32c",))]
_ZSTD = b"\x28\xb5\x2f\xfd"


class CheckedStore(LocalStore):
    """Local Zarr store that refuses pipes, devices, and files that are or would become too large."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a file as `LocalStore.get` does; raise HeadnbError if the file is refused."""
        path = self.root / key
        if path.exists():
            _check_file(user_path(path), compressed=path.name != "zarr.json")
        return await super().get(key, prototype, byte_range)


def check_codecs(path: Path, name: str, array: Any) -> None:
    """Raise HeadnbError unless the array `name` of the group at `path` has a codec chain that headnb writes."""
    chain = tuple(codec.to_dict()["name"] for codec in array.metadata.codecs)
    if chain not in _CHAINS:
        raise HeadnbError(f"{path} is damaged: headnb does not write the codecs of {name} ({', '.join(chain):.80})")


def _check_file(path: Path, *, compressed: bool) -> None:
    size = path.stat().st_size
    if compressed:
        with path.open("rb") as file:
            size = max(size, _decompressed(file.read(18), path))
    if size > MAX_BYTES:
        raise HeadnbError(f"{path} is damaged: it would take {size / 2**20:.0f} MB, more than {MAX_BYTES // 2**20} MB")


def _decompressed(head: bytes, path: Path) -> int:
    """Decompressed size in bytes that the header of a Zstandard frame states (RFC 8878, section 3.1.1.1).

    Raises:
        HeadnbError: `head` is not the start of a frame, or the frame does not state its size.
    """
    if head[:4] == _ZSTD and len(head) > 5:
        descriptor = head[4]
        single = descriptor >> 5 & 1
        start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
        length = (single, 2, 4, 8)[descriptor >> 6]
        if length and len(head) >= start + length:
            return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)
    raise HeadnbError(f"{path} is damaged: it does not state its decompressed size")

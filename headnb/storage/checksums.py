"""Checksums of stored files, so that a flipped bit raises an error and is never read as a score.

Zarr groups: a hash in the attributes covers what is written once, namely the attributes, the array metadata and the
constant columns. Each chunk has its own CRC32C, which Zarr checks on reading. netCDF files: a hash of the file follows
its last byte and is checked before any library parses the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

CHECKSUM = "checksum"  # the attribute
_CHECKSUM_PREFIX = b"headnb:blake2b:"
_HASH_BYTES = 16  # bytes


def compressors() -> list[Any]:
    """Codecs of a Zarr array: Zstandard compression, then CRC32C."""
    from zarr.codecs import Crc32cCodec, ZstdCodec  # noqa: PLC0415  needed only for scores on disk

    return [ZstdCodec(), Crc32cCodec()]


@contextlib.contextmanager
def report_corruption(path: Path, advice: str = "") -> Iterator[None]:
    """Turn any exception of a file reader into a one-line HeadnbError that names the file."""
    try:
        yield
    except HeadnbError:
        raise
    except Exception as error:
        reason = " ".join(f"{error or type(error).__name__}".split())
        raise HeadnbError(f"{path} is damaged: {reason:.200}{advice}") from error


def checksum(attrs: Mapping[str, Any], arrays: Mapping[str, Any], described: bytes = b"") -> str:
    """Hash attributes, named arrays of numbers or text, and the arrays' metadata (`described`)."""
    digest = hashlib.blake2b(described, digest_size=16)
    hashed_attrs = {name: value for name, value in attrs.items() if name != CHECKSUM}
    digest.update(json.dumps(hashed_attrs, sort_keys=True).encode())
    for name in sorted(arrays):
        values = np.asarray(arrays[name])
        number = values.dtype.kind in "iufb"
        digest.update(f"{name} {values.shape} {values.dtype if number else 'text'}".encode())
        digest.update(np.ascontiguousarray(values).tobytes() if number else json.dumps(values.tolist()).encode())
    return digest.hexdigest()


def array_metadata(path: Path, names: Iterable[str]) -> bytes:
    """Content of the metadata files (`zarr.json`) of these arrays of the Zarr group at `path`."""
    return b"".join((path / name / "zarr.json").read_bytes() for name in sorted(names))


def append_checksum(path: Path) -> None:
    """Append a hash of a file to the file. netCDF readers ignore bytes after the content."""
    digest = hashlib.blake2b(path.read_bytes(), digest_size=_HASH_BYTES).digest()
    with path.open("ab") as file:
        file.write(_CHECKSUM_PREFIX + digest)


def verify_checksum(path: Path) -> None:
    """Compare a file with the hash at its end. A file without a hash passes unchecked.

    Raises:
        HeadnbError: the file does not match its hash.
    """
    content = path.read_bytes()
    end = len(content) - len(_CHECKSUM_PREFIX) - _HASH_BYTES
    stored = content[max(end, 0) :]
    if (
        stored.startswith(_CHECKSUM_PREFIX)
        and stored[len(_CHECKSUM_PREFIX) :] != hashlib.blake2b(content[:end], digest_size=_HASH_BYTES).digest()
    ):
        raise HeadnbError(f"{path} is damaged: its content does not match its checksum")

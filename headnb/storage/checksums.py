"""Checksums of what lies on disk, so that a bit that flipped is found and never read as a score.

A hash among the attributes covers what is written once: the attributes themselves, how arrays are laid out, and the
values that stay. A chunk that a run writes again carries a CRC32C of its own, which Zarr checks on reading. A netCDF
file has a hash of the whole behind its end, looked at before any library parses what may be damaged.
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
    """Codecs of a Zarr array: compressed, and a CRC32C behind that."""
    from zarr.codecs import Crc32cCodec, ZstdCodec  # noqa: PLC0415  needed only for scores on disk

    return [ZstdCodec(), Crc32cCodec()]


@contextlib.contextmanager
def report_corruption(path: Path, advice: str = "") -> Iterator[None]:
    """Whatever a reader of a broken or forged file raises, as one line that names the file."""
    try:
        yield
    except HeadnbError:
        raise
    except Exception as error:
        reason = " ".join(f"{error or type(error).__name__}".split())
        raise HeadnbError(f"{path} is damaged: {reason:.200}{advice}") from error


def checksum(attrs: Mapping[str, Any], arrays: Mapping[str, Any], described: bytes = b"") -> str:
    """A hash of attributes, of named arrays of numbers or text, and of bytes that describe them."""
    digest = hashlib.blake2b(described, digest_size=16)
    told = {name: value for name, value in attrs.items() if name != CHECKSUM}
    digest.update(json.dumps(told, sort_keys=True).encode())
    for name in sorted(arrays):
        values = np.asarray(arrays[name])
        number = values.dtype.kind in "iufb"
        digest.update(f"{name} {values.shape} {values.dtype if number else 'text'}".encode())
        digest.update(np.ascontiguousarray(values).tobytes() if number else json.dumps(values.tolist()).encode())
    return digest.hexdigest()


def array_metadata(path: Path, names: Iterable[str]) -> bytes:
    """What the files of a Zarr group at `path` say about its arrays."""
    return b"".join((path / name / "zarr.json").read_bytes() for name in sorted(names))


def append_checksum(path: Path) -> None:
    """Put a hash of a file behind its content, where the readers of netCDF do not look."""
    digest = hashlib.blake2b(path.read_bytes(), digest_size=_HASH_BYTES).digest()
    with path.open("ab") as file:
        file.write(_CHECKSUM_PREFIX + digest)


def verify_checksum(path: Path) -> None:
    """Hold a file against the hash behind its content; one that has none is as it may be.

    Raises:
        HeadnbError: it is not what was sealed.
    """
    content = path.read_bytes()
    end = len(content) - len(_CHECKSUM_PREFIX) - _HASH_BYTES
    seal = content[max(end, 0) :]
    if (
        seal.startswith(_CHECKSUM_PREFIX)
        and seal[len(_CHECKSUM_PREFIX) :] != hashlib.blake2b(content[:end], digest_size=_HASH_BYTES).digest()
    ):
        raise HeadnbError(f"{path} is damaged: it is not what was written")

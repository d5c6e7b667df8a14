"""Checksums of a model's files, which detect bits that flipped on disk.

Each file has a 128-bit XXH3 hash. Hashing costs little more than reading the file; CRC-32 takes three times as long, a
cryptographic hash up to ten times. The hash detects accidents, not forgeries. A process checks a folder once, and again
if the size or modification time of a file changes.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, TypeAlias

import xxhash

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "checksums.json"
_BLOCK = 2**20  # bytes read at a time

Stamp: TypeAlias = tuple[tuple[str, int, int], ...]
_sound: dict[Path, Stamp] = {}
_one_at_a_time = threading.Lock()


def write_checksums(folder: Path) -> None:
    """Write the checksums of the files in a folder to checksums.json in it."""
    hashes = {
        path.name: _hash(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in {FILE, f".{FILE}"}
    }
    draft = folder / f".{FILE}"
    draft.write_text(json.dumps(hashes, indent=1), encoding="utf-8")
    draft.replace(folder / FILE)


def check_files(folder: Path) -> None:
    """Compare the files in a folder with their checksums.

    Raises:
        HeadnbError: a file is damaged or missing.
    """
    listed = folder / FILE
    try:
        expected = json.loads(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HeadnbError(f"{listed} is damaged: {error}") from error
    if not isinstance(expected, dict):
        raise HeadnbError(f"{listed} is damaged: it contains no checksums")
    with _one_at_a_time:
        try:
            stamp = _stamp(listed, *(folder / name for name in expected))
            if _sound.get(folder) == stamp:
                return
            changed = next((name for name, hashed in expected.items() if _hash(folder / name) != hashed), None)
        except (OSError, ValueError) as error:
            raise HeadnbError(f"{folder} is damaged: {error}") from error
        if changed is not None:
            raise HeadnbError(f"{folder / changed} is damaged: its content changed after it was written")
        _sound[folder] = stamp


def _stamp(*paths: Path) -> Stamp:
    return tuple((path.name, (status := path.stat()).st_size, status.st_mtime_ns) for path in paths)


def _hash(path: Path) -> str:
    digest, block = xxhash.xxh3_128(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
    return digest.hexdigest()

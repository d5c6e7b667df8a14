"""Kinds of files by their first bytes, so that an error says what a wrong file is."""

from __future__ import annotations

import re

JSON, TEXT, PARQUET = "JSON", "text", "a Parquet file"

_SIGNATURES = (  # text may begin with the printable ones, so a NUL byte must follow
    (rb"PAR1(?=.*\0)", PARQUET),
    (rb"ARROW1(?=.*\0)", "an Arrow file"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"PK\x03\x04", "a zip archive (as .xlsx and .pt files are)"),
    (rb"%PDF-", "a PDF"),
    (rb"SQLite format 3\0", "an SQLite database"),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 or netCDF file"),
    (rb"CDF[\x01\x02\x05]", "a netCDF file"),
    (rb"\x28\xb5\x2f\xfd", "an archive compressed with zstd"),
    (rb"BZh[1-9](1AY&SY|\x17rE8P)", "an archive compressed with bzip2"),
    (rb"\xfd7zXZ\0", "an archive compressed with xz"),
    (rb".{257}ustar(?=.*\0)", "a tar archive"),
    (rb"GGUF(?=.*\0)", "a GGUF model"),
    (rb".{6}\0\0\{", "a safetensors file"),  # the header's length in eight bytes, and the header
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"\x80[\x02-\x05]", "a Python pickle"),
    (rb"Obj\x01", "an Avro file"),
    (rb"ORC(?=.*\0)", "an ORC file"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8(?=.*\0)", "a picture"),
    (rb"\xff\xfe|\xfe\xff", "UTF-16 text (save it as UTF-8)"),
    (rb"version https://git-lfs", "a Git LFS pointer (git lfs pull fetches the file itself)"),
    (rb"\s*<(!doctype|html)", "an HTML page"),
    (rb"(\xef\xbb\xbf)?\s*(\{\s*[\"}]|\[\s*[\"{\[\]])", JSON),
)


def file_kind(head: bytes) -> str:
    """The kind of a file, such as "a Parquet file", by its first bytes (300 or more)."""
    for signature, kind in _SIGNATURES:
        if re.match(signature, head, re.DOTALL | re.IGNORECASE if kind == "an HTML page" else re.DOTALL):
            return kind
    return "a binary file" if b"\0" in head else TEXT

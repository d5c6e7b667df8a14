"""Text for streams with a limited encoding: characters that the encoding lacks become the nearest ASCII."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

_NEAREST = "headnb-nearest"  # name of the error handler
# The replacements of a heat map's shades keep their order and stay distinct; so do those of a table's marks.
_ASCII = dict(zip("▁▂▃▄▅▆▇█▀·×−–—✓✗▶‖⊘○", "_.-:=+*##.x---+x>=#o", strict=True)) | {
    "→": "->",
    "±": "+-",
    "≤": "<=",
    "≥": ">=",
    "▸": ">",
    "●": "*",
    "╱": "/",
}


def show_nearest() -> None:
    """Make stdout and stderr write the nearest ASCII for characters that their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NEAREST)


def for_stdout(text: str) -> str:
    """The text of an object's `repr`, with characters that `print` can write to the stdout of this process."""
    return encodable(text, sys.stdout)


def encodable(text: str, stream: object) -> str:
    """The text with the nearest ASCII for characters that the stream's encoding lacks.

    A stream without an encoding, such as one in memory, gets the text unchanged.
    """
    encoding = getattr(stream, "encoding", None)
    return text if encoding is None else text.encode(encoding, _NEAREST).decode(encoding)


def nearest_ascii(text: str) -> str:
    """The text with the nearest ASCII for all other characters."""
    return text.encode("ascii", _NEAREST).decode()


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_letter, error.object[error.start : error.end])), error.end


def _letter(letter: str) -> str:
    decomposed = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return _ASCII.get(letter) or decomposed or "?"


codecs.register_error(_NEAREST, _nearest)

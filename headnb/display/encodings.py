"""Text for streams that cannot show every letter: what they lack is written as the nearest ASCII."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

_NEAREST = "headnb-nearest"  # the name of the error handler
# The shades of a heat map stay in order and apart, as do the signs of a table.
_ASCII = dict(zip("▁▂▃▄▅▆▇█▀·×−–—✓✗▶‖⊘○", "_.-:=+*##.x---+x>=#o", strict=True)) | {
    "→": "->",
    "±": "+-",
    "≤": "<=",
    "≥": ">=",
}


def show_nearest() -> None:
    """Let stdout and stderr write the nearest ASCII in place of what their encoding lacks, not raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_NEAREST)


def encodable(text: str, stream: object) -> str:
    """A text with the nearest ASCII in place of what a stream's encoding lacks; a stream in memory has none."""
    encoding = getattr(stream, "encoding", None)
    return text if encoding is None else text.encode(encoding, _NEAREST).decode(encoding)


def _nearest(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_letter, error.object[error.start : error.end])), error.end


def _letter(letter: str) -> str:
    decomposed = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return _ASCII.get(letter) or decomposed or "?"


codecs.register_error(_NEAREST, _nearest)

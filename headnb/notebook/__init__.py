"""IPython magics, with their arguments, completion and tables."""

from __future__ import annotations

"""What a notebook cell calls: IPython magics, their arguments, completion and tables."""

from __future__ import annotations

"""Imported last by a process that is forked: forks that look for garbage would copy the memory of all its modules."""

from __future__ import annotations

import gc

gc.freeze()

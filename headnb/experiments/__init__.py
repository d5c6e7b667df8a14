"""The run folder of the notebooks: what they write for each other and read, summaries of it, and its report.

Names load on first use: `__init__.pyi` lists all that the notebooks import.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Run folder of the notebooks: its files, summaries of its results, and its report.

Names load on first use. `__init__.pyi` lists every name that the notebooks import.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Folders of the tests, their fixtures and the repository."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).parent
TESTS = SUPPORT.parent
ROOT = TESTS.parent
FIXTURES = TESTS / "fixtures"
BENCHMARKS = TESTS / "benchmarks"

"""Instruction selection by head patterns: application 2 of arXiv 2409.15820."""

from __future__ import annotations

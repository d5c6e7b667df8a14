"""Rows of a hub data set, served without a network."""

from __future__ import annotations

import datasets


def mock_load_dataset(monkeypatch, rows):
    """Replace `datasets.load_dataset` by a function that returns these rows; returns the list of recorded calls."""
    calls = []

    def load_dataset(path, *, streaming, **arguments):
        calls.append({"path": path, "streaming": streaming, **arguments})
        source = datasets.Dataset.from_list(rows)
        return source.to_iterable_dataset() if streaming else source

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls

"""Rows of a hub data set, served without a network."""

from __future__ import annotations

import datasets


def mock_load_dataset(monkeypatch, rows):
    """The hub's answer, made here: what load_dataset gives for these rows; the calls are recorded."""
    calls = []

    def load_dataset(path, *, streaming, **arguments):
        calls.append({"path": path, "streaming": streaming, **arguments})
        source = datasets.Dataset.from_list(rows)
        return source.to_iterable_dataset() if streaming else source

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls

"""Which models the cache keeps, and which it removes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from headnb.models.model_cache import ModelCache

if TYPE_CHECKING:
    from pathlib import Path

BYTES = 10 * 10 * 4


class Loader:
    """Counts its calls; each model has 400 bytes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, **options: Any) -> tuple[Any, Any]:
        self.calls.append((name, options))
        return torch.nn.Linear(10, 10, bias=False), f"tokenizer of {name}"


def test_the_least_recently_used_model_leaves_when_the_budget_is_spent() -> None:
    cache = ModelCache(Loader())
    for name in ("a", "b", "a", "c"):
        cache.load(name, budget=2 * BYTES)
    assert [cached.name for cached in cache] == ["a", "c"]


def test_the_model_asked_for_stays_even_if_it_alone_is_over_the_budget() -> None:
    cache = ModelCache(Loader())
    cache.load("a", budget=1)
    cache.load("b", budget=1)
    assert [cached.name for cached in cache] == ["b"]


def test_options_make_another_model_and_none_is_no_option() -> None:
    load = Loader()
    cache = ModelCache(load)
    first, _ = cache.load("a", dtype="float32", adapter=None)
    again, _ = cache.load("a", dtype="float32")
    other, _ = cache.load("a", dtype="bfloat16")
    assert first is again
    assert first is not other
    assert load.calls == [("a", {"dtype": "float32"}), ("a", {"dtype": "bfloat16"})]


def test_a_folder_that_was_written_to_is_loaded_again(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    cache = ModelCache(Loader())
    first, _ = cache.load(str(tmp_path))
    os.utime(weights, ns=(1, 1))  # same size, different modification time
    second, _ = cache.load(str(tmp_path))
    assert first is not second
    assert [cached.model for cached in cache] == [second]


def test_free_lets_go_of_the_named_ones_only() -> None:
    cache = ModelCache(Loader())
    for name in ("a", "b", "c"):
        cache.load(name)
    assert [cached.name for cached in cache.free(["b"])] == ["b"]
    assert [cached.name for cached in cache] == ["a", "c"]


def test_a_models_tokenizer_is_found_by_the_model_itself() -> None:
    cache = ModelCache(Loader())
    model, tokenizer = cache.load("a")
    cache.load("b")
    assert cache.tokenizer_of(model) == tokenizer
    assert cache.tokenizer_of(torch.nn.Linear(10, 10)) is None

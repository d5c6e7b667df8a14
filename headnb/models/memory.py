"""Checks that memory is sufficient before weights or scores are allocated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def check_memory(needed: float, what: str, advice: str) -> None:
    """Refuse what does not fit into the free memory, before the operating system kills the process.

    Args:
        needed: bytes.
        what: name of what needs the memory, in the plural.
        advice: what the user can do instead.

    Raises:
        HeadnbError: less memory is free.
    """
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

    free = psutil.virtual_memory().available
    if needed > free:
        raise HeadnbError(
            f"{what} need {needed / 2**30:.1f} GB of memory, but only {free / 2**30:.1f} GB are free; {advice}"
        )


def weight_bytes(folder: Path | None, config: Any, dtype: Any) -> float:
    """Bytes that the weights take when loaded, computed from file sizes; 0 if the files are not on this machine."""
    import torch  # noqa: PLC0415

    if folder is None:
        return 0
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else list(folder.glob("model-*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    stored = getattr(config, "dtype", None)
    if isinstance(stored, torch.dtype) and isinstance(dtype, torch.dtype):
        return size * dtype.itemsize / stored.itemsize
    return size


def fits_in_float32(model: torch.nn.Module) -> bool:
    """Whether the weights as float32 fit into half of the main memory."""
    import psutil  # noqa: PLC0415

    size = 4 * sum(weight.numel() for weight in model.parameters())
    return not getattr(model, "is_quantized", False) and size < psutil.virtual_memory().total / 2

"""How much memory weights and scores take, and whether there is as much, asked before it is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def check_memory(needed: float, what: str, advice: str) -> None:
    """Refuse what does not fit into the memory that is free now, before the system ends the process for it.

    Args:
        needed: bytes.
        what: what needs them.
        advice: what to do instead.

    Raises:
        HeadnbError: there is less.
    """
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

    free = psutil.virtual_memory().available
    if needed > free:
        raise HeadnbError(
            f"{what} need {needed / 2**30:.1f} GB of memory, and {free / 2**30:.1f} GB are free; {advice}"
        )


def weight_bytes(folder: Path | None, config: Any, dtype: Any) -> float:
    """What the weights take once they are loaded, told by their files; 0 where these are not on this machine yet."""
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
    """Whether half of the main memory holds the weights as float32."""
    import psutil  # noqa: PLC0415  comes with accelerate

    size = 4 * sum(weight.numel() for weight in model.parameters())
    return not getattr(model, "is_quantized", False) and size < psutil.virtual_memory().total / 2

"""Packing of several samples into one row of a batch, without padding.

In a decoder the tokens of a row interact only in attention. So samples of any length can be concatenated to a row
(1, N) if attention runs on each sample separately and positions count from zero in each sample. The cost of attention
is then the sum of the squared lengths instead of the square of their sum.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from headnb.engine.attention_functions import replace_attention
from headnb.engine.dependence import depends_on_tokens
from headnb.engine.hooks import input_device, probe_tokens
from headnb.engine.model_contexts import frozen
from headnb.engine.recompute import with_recompute
from headnb.errors import HeadnbError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

    from headnb.engine.layout import HeadLayout

# Maximum tokens of a packed row on a CPU. Matrix products reach full speed at a few hundred; memory stays small.
MAX_PACKED_TOKENS_ON_CPU = 1024


def packing_is_faster(model: PreTrainedModel) -> bool:
    """Whether packing saves time. On accelerators one attention call per sample takes longer than padding."""
    return input_device(model).type == "cpu"


def max_batch_tokens(model: PreTrainedModel, batch_tokens: int, *, packed: bool = False) -> int:
    """Token budget of a batch, at most the user's `batch_tokens`; smaller for packed rows on a CPU.

    With LongRoPE a sample longer than the original context changes the frequencies of the whole batch. The budget is
    then at most the original context, so that such a sample is alone in its batch.
    """
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        batch_tokens = min(batch_tokens, rope.get("original_max_position_embeddings") or batch_tokens)
    return min(batch_tokens, MAX_PACKED_TOKENS_ON_CPU) if packed and packing_is_faster(model) else batch_tokens


def can_pack(model: PreTrainedModel, layout: HeadLayout) -> bool:
    """Whether `packed_attention` may be tried. Only a trial shows whether tokens interact outside attention as well."""
    config = model.config.get_text_config()
    sdpa = config._attn_implementation == "sdpa"  # noqa: SLF001  transformers has no public name for it
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    by_row_position = any(getattr(config, name, None) for name in ("attention_chunk_size", "index_topk"))
    return sdpa and takes_positions and not by_row_position and not layout.projections and all(layout.heads)


def check_packed_training(model: PreTrainedModel) -> None:
    """Check that a model can be trained on packed rows.

    Raises:
        HeadnbError: the samples of a row would attend to each other, or the model does not support such rows.
    """
    name, device = type(model).__name__, input_device(model)
    ends = torch.tensor([0, 4, 8], dtype=torch.int32, device=device)
    number = torch.tensor([[0] * 4 + [1] * 4], dtype=torch.int32, device=device)
    # TRL describes a packed row by these arguments; each kind of layer reads some of them.
    described = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 4, "max_length_k": 4, "seq_idx": number}

    def logits(row: Tensor, positions: Tensor) -> Tensor:
        result: Tensor = model(input_ids=row, position_ids=positions, use_cache=False, **described).logits
        return result

    with torch.no_grad(), frozen(model):
        try:
            mixed = samples_interact(model, logits)
        except (TypeError, ValueError) as error:
            raise HeadnbError(f"{name} does not support packed samples: {first_line(error)}") from error
    if mixed:
        raise HeadnbError(f"packed samples would attend to each other in {name}; train without packing")


def samples_interact(model: PreTrainedModel, logits: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether the logits of the second sequence in a row depend on the first sequence.

    If a different first sequence leaves them bitwise equal, they do not. Otherwise rounding may differ (mixture of
    experts), and the gradient decides. True if the gradient is not available.

    Args:
        model: the model that `logits` runs.
        logits: maps token ids and positions (1, 8) to logits (1, 8, V); positions restart in the second sequence.
    """
    rows = probe_tokens(model, [[1, 6, 2, 3, 2, 5, 3, 1], [7, 4, 6, 5, 2, 5, 3, 1]])
    positions = torch.arange(4, device=rows.device).repeat(2)[None]
    first, other = (logits(row[None], positions)[0, 4:] for row in rows)
    if torch.equal(first, other):
        return False
    mixed = depends_on_tokens(model, partial(logits, rows[:1], positions), slice(4, 8), slice(0, 4))
    return True if mixed is None else mixed


@contextmanager
def packed_attention(model: nn.Module, layout: HeadLayout, lengths: tuple[int, ...]) -> Iterator[None]:
    """Let each of the concatenated sequences of these lengths in the single input row attend only to itself.

    Works with sdpa's attention function, whose masks are True on visible keys. The caller passes the positions.
    """
    with replace_attention(model, layout, _PerSampleAttention(lengths)):
        yield


class _PerSampleAttention:
    """Attention of several concatenated sequences in a row, each separately.

    Transformers builds the mask of the whole row. If a sequence's block of it is the plain causal mask, the block is
    omitted, so that the fast kernels run.
    """

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths = list(lengths)
        self._parts: list[tuple[Tensor, list[Tensor | None]]] = []  # each mask of the forward pass with its blocks

    def __call__(
        self,
        function: Callable[..., Any],
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        sequences = (torch.split(tensor, self.lengths, 2) for tensor in (query, key, value))
        parts = zip(*sequences, self._masks(attention_mask), strict=True)
        outputs = [function(module, *part, **options)[0] for part in parts]
        saved = [output.detach() for output in outputs]  # attention's backward pass keeps these in memory anyway
        return with_recompute(torch.cat(outputs, 1), partial(torch.cat, saved, 1)), None

    def _masks(self, mask: Tensor | None) -> list[Tensor | None]:
        if mask is None:
            return [None] * len(self.lengths)
        for split_mask, parts in self._parts:
            if split_mask is mask:
                return parts
        ends = torch.tensor(self.lengths).cumsum(0).tolist()
        blocks = [
            mask[..., end - length : end, end - length : end] for end, length in zip(ends, self.lengths, strict=True)
        ]
        parts = [None if torch.equal(block, torch.ones_like(block).tril()) else block for block in blocks]
        self._parts.append((mask, parts))
        return parts

"""Several samples in one row of a batch, without padding.

Each token's path through a decoder meets other tokens in attention only. So samples of any length can lie one behind
the other in a row (1, N) if attention runs on each by itself, which also costs the sum of their squares rather than
the square of their sum. Positions count from zero in each sample.
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
from headnb.engine.hooks import frozen, input_device
from headnb.engine.recompute import with_recompute
from headnb.errors import HeadnbError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

    from headnb.engine.layout import HeadLayout

# Tokens of a packed row on a CPU: matrix products are at full speed from a few hundred on, and memory stays small.
MAX_PACKED_TOKENS_ON_CPU = 1024


def packing_is_faster(model: PreTrainedModel) -> bool:
    """Whether packing saves time. On accelerators the many small attention calls of a row take longer than padding."""
    return input_device(model).type == "cpu"


def max_batch_tokens(model: PreTrainedModel, batch_tokens: int, *, packed: bool = False) -> int:
    """Tokens that a batch may have where the user wants `batch_tokens`, packed into a row or not.

    With LongRoPE a sample beyond the original context gives the whole batch other frequencies, so it is to be alone.
    """
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        batch_tokens = min(batch_tokens, rope.get("original_max_position_embeddings") or batch_tokens)
    return min(batch_tokens, MAX_PACKED_TOKENS_ON_CPU) if packed and packing_is_faster(model) else batch_tokens


def can_pack(model: PreTrainedModel, layout: HeadLayout) -> bool:
    """Whether `packed_attention` may be tried on a model; what its tokens exchange otherwise only a trial tells."""
    config = model.config.get_text_config()
    sdpa = config._attn_implementation == "sdpa"  # noqa: SLF001  transformers has no public name for it
    takes_positions = "position_ids" in inspect.signature(model.forward).parameters
    by_place_in_row = any(getattr(config, name, None) for name in ("attention_chunk_size", "index_topk"))
    return sdpa and takes_positions and not by_place_in_row and not layout.projections and all(layout.heads)


def check_packed_training(model: PreTrainedModel) -> None:
    """Refuse to train on rows of several samples where nothing in the model keeps them apart.

    Raises:
        HeadnbError: the samples would see each other, or the model does not take such rows.
    """
    name, device = type(model).__name__, input_device(model)
    ends = torch.tensor([0, 4, 8], dtype=torch.int32, device=device)
    number = torch.tensor([[0] * 4 + [1] * 4], dtype=torch.int32, device=device)
    # What TRL tells a model of a row; each kind of layer reads some of it.
    told = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 4, "max_length_k": 4, "seq_idx": number}

    def logits(row: Tensor, positions: Tensor) -> Tensor:
        given: Tensor = model(input_ids=row, position_ids=positions, use_cache=False, **told).logits
        return given

    with torch.no_grad(), frozen(model):
        try:
            mixed = samples_interact(model, logits)
        except (TypeError, ValueError) as error:
            raise HeadnbError(f"{name} does not take packed samples: {first_line(error)}") from error
    if mixed:
        raise HeadnbError(f"{name} lets samples see each other that are packed into a row; train without packing")


def samples_interact(model: PreTrainedModel, logits: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether the logits of the second of two sequences in a row depend on the first.

    They do not where another first sequence leaves them equal bit by bit. A mixture of experts rounds them differently;
    there the gradient says.

    Args:
        model: what `logits` runs.
        logits: of token ids and positions (1, 8), which begin again with the second sequence: (1, 8, V).
    """
    device = input_device(model)
    rows = torch.tensor([[1, 6, 2, 3, 2, 5, 3, 1], [7, 4, 6, 5, 2, 5, 3, 1]], device=device)
    positions = torch.arange(4, device=device).repeat(2)[None]
    one, other = (logits(row[None], positions)[0, 4:] for row in rows)
    if torch.equal(one, other):
        return False
    mixed = depends_on_tokens(model, partial(logits, rows[:1], positions), slice(4, 8), slice(0, 4))
    return True if mixed is None else mixed


@contextmanager
def packed_attention(model: nn.Module, layout: HeadLayout, lengths: tuple[int, ...]) -> Iterator[None]:
    """Let sequences of these lengths, one behind the other in the one row of the input, attend to themselves alone.

    For sdpa's attention function, whose masks are True where a token is seen. Positions are the caller's to give.
    """
    with replace_attention(model, layout, _PerSampleAttention(lengths)):
        yield


class _PerSampleAttention:
    """Attention of several sequences that lie one behind the other in a row, each by itself.

    Transformers makes the mask of the whole row. Where a sequence's part of it is the plain causal one, none is given,
    and the fast kernels run.
    """

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths = list(lengths)
        self._parts: list[tuple[Tensor, list[Tensor | None]]] = []  # of each mask of the forward pass

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
        kept = [output.detach() for output in outputs]  # by attention's own backward pass
        return with_recompute(torch.cat(outputs, 1), partial(torch.cat, kept, 1)), None

    def _masks(self, mask: Tensor | None) -> list[Tensor | None]:
        if mask is None:
            return [None] * len(self.lengths)
        for known, parts in self._parts:
            if known is mask:
                return parts
        ends = torch.tensor(self.lengths).cumsum(0).tolist()
        blocks = [
            mask[..., end - length : end, end - length : end] for end, length in zip(ends, self.lengths, strict=True)
        ]
        parts = [None if torch.equal(block, torch.ones_like(block).tril()) else block for block in blocks]
        self._parts.append((mask, parts))
        return parts

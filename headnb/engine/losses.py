"""Losses of a model: the decoder at all positions, and the language-model head at answer positions only.

The decoder and the language-model head are found once, by one or two passes over eight tokens. They run separately only
if together they reproduce the model's own logits.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from headnb.engine.batching import MAX_PADDING, Answers, Batch, collate, pack, plan_batches
from headnb.engine.decoders import decoder_of
from headnb.engine.dependence import depends_on_tokens
from headnb.engine.hooks import layout_of, model_logits, probe_tokens, record_heads
from headnb.engine.model_contexts import frozen
from headnb.engine.packing import (
    can_pack,
    max_batch_tokens,
    packed_attention,
    packing_is_faster,
    samples_interact,
)
from headnb.engine.threads import this_thread_only
from headnb.engine.trial_memory import Trial, recall, remember, trial_key
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from transformers import PreTrainedModel

    from headnb.engine.layout import HeadLayout
    from headnb.engine.tokenization import EncodedSample

# Maximum number of float32 logits in memory at one time. Up to 32 MB, glibc reuses freed memory; the system maps larger
# blocks anew, page by page, and they take four times as long to fill.
MAX_LOGIT_ELEMENTS = 8_000_000


@contextmanager
def batch_context(model: PreTrainedModel, layout: HeadLayout, batch: Batch) -> Iterator[None]:
    """Freeze the model, and let each sample of a packed batch attend only to itself."""
    with frozen(model), packed_attention(model, layout, batch.lengths) if batch.lengths else nullcontext():
        yield


def plan_passes(
    model: PreTrainedModel,
    loss_computer: LossComputer,
    lengths: np.ndarray,
    batch_tokens: int,
    *,
    seed: int = 0,
    max_padding: float = MAX_PADDING,
) -> tuple[list[np.ndarray], Callable[[Sequence[EncodedSample]], Batch]]:
    """The positions of the samples of each batch, and the function that makes a batch of samples.

    Batches are packed if that is faster and the model allows it. Arguments as for `plan_batches`.
    """
    packed = loss_computer.supports_packing and packing_is_faster(model)
    most = max_batch_tokens(model, batch_tokens, packed=packed)
    plan = plan_batches(lengths, batch_tokens=most, packed=packed, seed=seed, max_padding=max_padding)
    return [plan.order[rows] for rows in plan.batches()], pack if packed else collate


@dataclass(frozen=True)
class LossComputer:
    """Computes losses from a model's last hidden states.

    `states` computes the hidden states (B, T, C); `logits` maps rows of them (N, C) to logits (N, V).
    """

    states: Callable[..., Tensor]
    logits: Callable[[Tensor], Tensor]
    vocabulary: int
    supports_packing: bool = False
    """Whether packed sequences, each with its own positions, stay independent under `packing.packed_attention`."""

    def backward(self, batch: Batch, device: torch.device) -> Tensor:
        """Run the backward pass of the summed losses; returns each sample's loss (B,).

        Logits exist for a few hundred answer positions at a time. The gradient of the states is collected over them,
        followed by one backward pass through the decoder.
        """
        states, answers = self._read(batch, device)
        gradient = torch.empty_like(states)
        loss = self._losses(states.detach(), answers, gradient)
        torch.autograd.backward(states, gradient)
        return loss

    @torch.no_grad()
    def losses(self, batch: Batch, device: torch.device) -> Tensor:
        """Each sample's loss (B,), by a forward pass only."""
        return self._losses(*self._read(batch, device))

    def _read(self, batch: Batch, device: torch.device) -> tuple[Tensor, Answers]:
        """The states (N, C) that predict the answer tokens, and the answer tokens."""
        states = self.states(**_inputs(batch, device)).flatten(0, 1)  # (B * T, C)
        answers = Answers(*(_to_device(tensor, states.device) for tensor in batch.answers))
        return states.index_select(0, answers.token_indices), answers

    def _losses(self, states: Tensor, answers: Answers, gradient: Tensor | None = None) -> Tensor:
        """Each sample's loss (B,); `gradient` (N, C) is filled with d(sum of losses) / d(states)."""
        wide = torch.promote_types(states.dtype, torch.float32)
        loss = torch.zeros(len(answers.counts), dtype=wide, device=states.device)
        size = max(1, MAX_LOGIT_ELEMENTS // self.vocabulary)
        for start in range(0, len(states), size):
            part = slice(start, start + size)
            read = states[part].detach().requires_grad_(gradient is not None)
            logits = self.logits(read)  # (n, V)
            log_p = torch.log_softmax(logits.detach(), -1, dtype=wide)
            target = answers.tokens[part].to(log_p.device)[:, None]
            samples = answers.samples[part]
            weight = 1 / answers.counts[samples].to(wide)  # of a token in its sample's mean
            loss.index_add_(0, samples, -log_p.gather(1, target)[:, 0].to(loss.device) * weight)
            if gradient is not None:
                d_logits = log_p.exp_().scatter_add_(1, target, -torch.ones_like(target, dtype=wide))  # p - onehot
                (d_read,) = torch.autograd.grad(logits, read, d_logits.to(logits.dtype))
                gradient[part] = d_read * weight[:, None]
        return loss


def find_heads_and_loss_computer(model: PreTrainedModel) -> tuple[HeadLayout, LossComputer]:
    """Find the heads and the loss computer of a causal decoder in the same passes.

    Raises:
        HeadnbError: the model is not a causal decoder, has no softmax attention heads, or no language-model head.
    """
    name = type(model).__name__
    if model.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(model.config, "is_decoder", False):
        raise HeadnbError(f"{name} is an encoder; headnb scores decoder-only models")
    if getattr(model.config, "is_encoder_decoder", False):
        raise HeadnbError(f"{name} is an encoder-decoder; headnb scores decoder-only models")
    key = trial_key(model)
    if key is not None and (trial := recall(key)) is not None:
        return layout_of(model, trial.heads), replace(_split(model, trial.vocabulary), supports_packing=True)
    with record_heads(model) as recorded_layout:
        probe = _probe(model)
    layout = recorded_layout()
    loss_computer = _build_loss_computer(model, probe, layout)
    if key is not None and loss_computer.supports_packing:
        names = {module: name for name, module in model.named_modules()}
        heads = {names[module]: layout.heads[layer] for layer, module in layout.attention}
        remember(key, Trial(heads, loss_computer.vocabulary))
    return layout, loss_computer


def find_loss_computer(model: PreTrainedModel, layout: HeadLayout | None = None) -> LossComputer:
    """Find a loss computer that runs decoder and language-model head separately, or else the whole model.

    Some models change the logits after the head (scaling, soft caps). The known forms are tested on a few tokens. A
    model with another form computes its logits at every position, which costs memory but changes no result. If `layout`
    is given, packing of the same tokens into one row is tested too.

    Raises:
        HeadnbError: the model has no language-model head, adds tokens to its input, or sees later tokens.
    """
    return _build_loss_computer(model, _probe(model), layout)


class _ProbePass(NamedTuple):
    """The whole model's pass over two short sequences that share their first two tokens."""

    tokens: Tensor
    """(2, 4)"""
    logits: Tensor
    """(2, 4, V)"""
    states: Tensor | None
    """(2, 4, C), the decoder's last hidden states; None if they were not observed."""


def _probe(model: PreTrainedModel) -> _ProbePass:
    if model.get_output_embeddings() is None:  # type: ignore[no-untyped-call]
        raise HeadnbError(f"{type(model).__name__} has no language-model head; load it with AutoModelForCausalLM")
    tokens = probe_tokens(model, [[1, 2, 3, 4], [1, 2, 5, 6]])
    given: list[Any] = []
    note = decoder_of(model).register_forward_hook(this_thread_only(lambda _, __, output: given.append(output)))
    with note, torch.no_grad(), frozen(model):
        logits = model_logits(model, tokens)
    return _ProbePass(tokens, logits, getattr(given[0], "last_hidden_state", None) if given else None)


def _build_loss_computer(model: PreTrainedModel, probe: _ProbePass, layout: HeadLayout | None) -> LossComputer:
    """Choose how to compute losses from the probe pass and one or two more passes."""
    if probe.logits.shape[:2] != probe.tokens.shape:
        raise HeadnbError(
            f"{type(model).__name__} adds tokens to every sample, as prompt tuning does; such models cannot be scored"
        )
    _check_causal(model, probe)
    whole = LossComputer(partial(_full_logits, model), nn.Identity(), probe.logits.shape[-1])
    adapters = getattr(model, "peft_config", {}).values()
    if any(getattr(adapter, "alora_invocation_tokens", None) for adapter in adapters):
        return whole  # the wrapped model looks for the invocation tokens that activate such an adapter
    split = _split(model, probe.logits.shape[-1])
    with torch.no_grad(), frozen(model):
        head_is_known = probe.states is not None and _reproduces(partial(split.logits, probe.states), probe.logits)
        if head_is_known and layout is not None and _packing_is_exact(model, layout, split, probe):
            return replace(split, supports_packing=True)
        if _reproduces(lambda: split.logits(split.states(input_ids=probe.tokens)), probe.logits):
            return split
    return whole


def _split(model: PreTrainedModel, vocabulary: int) -> LossComputer:
    """The loss computer that runs decoder and language-model head separately."""
    config = model.config.get_text_config()
    decoder, head = decoder_of(model), model.get_output_embeddings()  # type: ignore[no-untyped-call]

    def states(**inputs: Any) -> Tensor:
        hidden: Tensor = decoder(**inputs, use_cache=False, return_dict=True).last_hidden_state
        return hidden

    def logits(hidden: Tensor) -> Tensor:
        return _post_process_logits(head(hidden), config)

    return LossComputer(states, logits, vocabulary)


def _full_logits(model: PreTrainedModel, **inputs: Any) -> Tensor:
    """The whole model's logits (B, T, V)."""
    logits: Tensor = model(**inputs, use_cache=False, return_dict=True).logits
    return logits


def _reproduces(compute: Callable[[], Tensor], expected: Tensor) -> bool:
    """Whether `compute` runs and returns the expected logits."""
    try:
        return torch.allclose(compute(), expected, equal_nan=True)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        return False


def _packing_is_exact(
    model: PreTrainedModel, layout: HeadLayout, loss_computer: LossComputer, probe: _ProbePass
) -> bool:
    """Whether the probe sequences, packed into one row, have the same logits as in separate rows."""
    if not can_pack(model, layout):
        return False
    lengths = (probe.tokens.shape[1],) * len(probe.tokens)

    def logits(row: Tensor, positions: Tensor) -> Tensor:
        return loss_computer.logits(loss_computer.states(input_ids=row, position_ids=positions))

    try:
        with packed_attention(model, layout, lengths):
            positions = torch.arange(lengths[0], device=probe.tokens.device).repeat(len(lengths))
            packed = logits(probe.tokens.view(1, -1), positions[None])
            rounding = torch.finfo(packed.dtype).eps ** 0.5
            # In half precision this tolerance is several percent, which could hide an interaction.
            mixed = rounding > 1e-2 and samples_interact(model, logits)
    except (TypeError, ValueError, RuntimeError):
        return False
    tolerance = rounding * probe.logits.abs().max()
    return not mixed and bool((packed.view_as(probe.logits) - probe.logits).abs().max() <= tolerance)


def _post_process_logits(logits: Tensor, config: Any) -> Tensor:
    """Apply the architecture's scaling or soft cap to the logits of the head."""
    if (scale := getattr(config, "logit_scale", None)) is not None:  # cohere
        logits = logits * scale
    if (scale := getattr(config, "logits_scaling", None)) is not None:  # granite
        logits = logits / scale
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # gemma
        logits = torch.tanh(logits / cap) * cap
    return logits


def _check_causal(model: PreTrainedModel, probe: _ProbePass) -> None:
    """Check that the logits of the first two tokens, which both sequences share, do not depend on later tokens.

    If they are bitwise equal, they do not. Otherwise rounding may differ (mixture of experts); the gradient decides.

    Raises:
        HeadnbError: the model sees later tokens.
    """
    first, other = probe.logits
    if torch.equal(first[:2], other[:2]):
        return
    bare = getattr(model, "_orig_mod", model)  # torch.compile would trace the passes again
    ahead = depends_on_tokens(bare, partial(_full_logits, bare, input_ids=probe.tokens), slice(0, 2), slice(2, None))
    if ahead is None:  # no gradient through quantized weights; an encoder's logits differ about equally everywhere
        shared, later = ((first[part] - other[part]).norm() for part in (slice(0, 2), slice(2, None)))
        ahead = bool(shared > 0.1 * later)
    if ahead:
        raise HeadnbError(
            f"{type(model).__name__} attends to later tokens: it is an encoder, and headnb scores only decoders"
        )


def _inputs(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    inputs = {"input_ids": _to_device(batch.input_ids, device)}
    if batch.lengths is not None:
        positions = torch.cat([torch.arange(length) for length in batch.lengths])
        inputs["position_ids"] = _to_device(positions[None], device)
    if batch.attention_mask is not None:
        mask = _to_device(batch.attention_mask, device)
        inputs |= {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    return inputs


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the batch to the device; from pinned memory to CUDA the copy is asynchronous."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

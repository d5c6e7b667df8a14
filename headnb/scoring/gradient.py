"""Gradient scores of attention heads: one forward pass and one backward pass through activations only.

For sample x, layer l and head h, with head outputs O = A V (T, D) and the loss L(x), the mean cross-entropy over the
answer tokens of x:

    activation    s[x, l, h] = sum_q sum_d O[q, d] * dL(x)/dO[q, d]    = sum_qk A[q, k] * dL(x)/dA[q, k]
    taylor-token  s[x, l, h] = sum_q | sum_d O[q, d] * dL(x)/dO[q, d] |

The two forms of the first line are equal because dL/dA = (dL/dO) V^T, so no attention matrix is ever made
(arXiv 2409.15820, equation of the activation level; Michel et al. 2019 for the gate at 1 and the per-token form).

What is left out, because no score needs it: gradients of parameters, everything before the first layer's head
outputs in the backward pass, and logits at positions that are not part of an answer. The samples of a batch do not
mix, so the backward pass of the *sum* of their losses gives each sample its own gradient.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from headnb.batching import Answers, Batch
from headnb.capture import checkpointed, find_heads, frozen, head_outputs, input_device
from headnb.errors import HeadnbError
from headnb.heap import HolesGivenBack
from headnb.kept import kept_small
from headnb.packing import can_pack, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

    from headnb.capture import HeadLayout

# Elements of the float32 logits that exist at one time. 32 MB is as large as glibc hands out again from memory that it
# holds; anything larger comes fresh from the system, page by page, and takes four times as long to fill.
LOGITS_AT_ONCE = 8_000_000

# Tokens of a sample that is alone in its batch from where memory is worth a little time: nothing makes it smaller.
LONG = 1024


def activation(O: Tensor, dO: Tensor) -> Tensor:
    """s = sum_q sum_d O * dO: (B, T, H, D), (B, T, H, D) -> (B, H), summed in float32 or better."""
    return _token_products(O, dO).sum(1)


def taylor_token(O: Tensor, dO: Tensor) -> Tensor:
    """s = sum_q | sum_d O * dO |: (B, T, H, D), (B, T, H, D) -> (B, H), summed in float32 or better."""
    return _token_products(O, dO).abs().sum(1)


def _token_products(O: Tensor, dO: Tensor) -> Tensor:
    """sum_d O * dO (B, T, H). A product of two bfloat16 numbers is exact in float32; their sums are taken there."""
    wide = torch.promote_types(O.dtype, torch.float32)
    products: Tensor = torch.linalg.vecdot(O.to(wide), dO.to(wide))
    return products


class _ScoreOnBackward(torch.autograd.Function):
    """The identity, whose backward pass hands O and dL/dO to `receive`, as the gradient arrives.

    O is kept by `save_for_backward`, where attention's own backward pass keeps it anyway: so it costs no memory, and
    under gradient checkpointing it is recomputed like any other activation.
    """

    @staticmethod
    def forward(ctx: Any, O: Tensor, receive: Callable[[Tensor, Tensor], None], first: bool) -> Tensor:
        ctx.save_for_backward(O)
        ctx.receive, ctx.first = receive, first
        return O.view_as(O)

    @staticmethod
    def backward(ctx: Any, dO: Tensor) -> tuple[Tensor | None, None, None]:
        (O,) = ctx.saved_tensors
        ctx.receive(O, dO)
        return None if ctx.first else dO, None, None


@dataclass(frozen=True)
class GradientScorer:
    """Scores batches of one model with one of the reductions above.

    Use `gradient_scorer` to make one. Not safe for two threads on one model.
    """

    model: PreTrainedModel
    layout: HeadLayout
    reduce: Callable[[Tensor, Tensor], Tensor]
    readout: Readout
    offloaded: bool = False
    """Whether weights come from memory or disk for each layer's turn. What autograd keeps would hold them all."""

    @property
    def packs(self) -> bool:
        """Whether the model keeps the samples of a packed batch apart."""
        return self.readout.packs

    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[Tensor, Tensor]:
        """Signed scores (B, L, H) and losses (B,), on the CPU; NaN where a layer has no such head.

        Args:
            batch: at least one answer token in each row.
            budget: with a sample of more tokens every layer is checkpointed, as with offloaded weights: a third more
                work, memory for one layer's activations.
        """
        layers, heads = self.layout.shape
        device = input_device(self.model)
        found: dict[int, Tensor] = {}  # layer -> (B, H of this layer), on the layer's own device
        recompute = self.offloaded or (budget is not None and batch.longest > budget)
        long = len(batch) == 1 and batch.longest >= LONG and device.type == "cpu" and not recompute
        holes = HolesGivenBack(sum(map(bool, self.layout.heads))) if long else None

        def tap(layer: int, O: Tensor) -> Tensor:
            if holes is not None:
                holes.next_layer()
            first = not O.requires_grad
            if first:  # nothing below needs a gradient: the graph starts here
                O = O.detach().requires_grad_()
            passed: Tensor = _ScoreOnBackward.apply(O, partial(receive, layer), first)  # type: ignore[no-untyped-call]
            return passed

        def receive(layer: int, O: Tensor, dO: Tensor) -> None:
            found[layer] = self._reduced(O, dO, batch.lengths)
            if holes is not None:
                holes.next_layer()

        with ExitStack() as stack:
            stack.enter_context(holes or nullcontext())
            stack.enter_context(ready(self.model, self.layout, batch))
            stack.enter_context(checkpointed(self.model) if recompute else kept_small(self.model))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(head_outputs(self.model, tap, self.layout))
            loss = self.readout.backward(batch, device)
        scores = torch.full((len(loss), layers, heads), torch.nan, dtype=loss.dtype, device=loss.device)
        for layer, score in found.items():
            scores[:, layer, : score.shape[1]] = score.to(loss.device)
        return scores.cpu(), loss.cpu()

    def _reduced(self, O: Tensor, dO: Tensor, lengths: tuple[int, ...] | None) -> Tensor:
        """(B, H) of a layer: each sample for itself, where several share a row."""
        if lengths is None:
            return self.reduce(O, dO)
        samples = zip(torch.split(O, list(lengths), 1), torch.split(dO, list(lengths), 1), strict=True)
        return torch.cat([self.reduce(*sample) for sample in samples])


def gradient_scorer(model: PreTrainedModel, reduce: Callable[[Tensor, Tensor], Tensor]) -> GradientScorer:
    """Look at a model once, and make what scores its batches.

    Raises:
        HeadnbError: as for `decoder_heads`, or there is no language-model head.
    """
    layout = decoder_heads(model)
    offloaded = any(weight.is_meta for weight in model.parameters())
    return GradientScorer(model, layout, reduce, find_readout(model, layout), offloaded)


def decoder_heads(model: PreTrainedModel) -> HeadLayout:
    """Where the heads of a causal decoder are.

    Raises:
        HeadnbError: the model is no causal decoder, or has no softmax attention heads.
    """
    if model.config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(model.config, "is_decoder", False):
        raise HeadnbError(f"{type(model).__name__} is an encoder; headnb scores decoder-only models")
    if getattr(model.config, "is_encoder_decoder", False):
        raise HeadnbError(f"{type(model).__name__} is an encoder-decoder; headnb scores decoder-only models")
    return find_heads(model)


@contextmanager
def ready(model: PreTrainedModel, layout: HeadLayout, batch: Batch) -> Iterator[None]:
    """The model frozen, and the samples of a packed batch kept apart."""
    with frozen(model), packed(model, layout, batch.lengths) if batch.lengths else nullcontext():
        yield


@dataclass(frozen=True)
class Readout:
    """How a model's losses come from its last hidden states.

    `states` gives what is read (B, T, C) and `logits` turns rows of it (N, C) into logits (N, V).
    """

    states: Callable[..., Tensor]
    logits: Callable[[Tensor], Tensor]
    vocabulary: int
    packs: bool = False
    """Whether sequences that share a row, with positions of their own and `capture.packed` attention, stay apart."""

    def backward(self, batch: Batch, device: torch.device) -> Tensor:
        """Each sample's loss (B,), after a backward pass of their sum.

        Logits are made, used and dropped for a few hundred answer positions at a time; the gradient of the states
        is collected, and then goes back through the model once.
        """
        states, answers = self._read(batch, device)
        gradient = torch.empty_like(states)
        loss = self._losses(states.detach(), answers, gradient)
        torch.autograd.backward(states, gradient)
        return loss

    @torch.no_grad()
    def losses(self, batch: Batch, device: torch.device) -> Tensor:
        """Each sample's loss (B,), by a forward pass alone."""
        return self._losses(*self._read(batch, device))

    def _read(self, batch: Batch, device: torch.device) -> tuple[Tensor, Answers]:
        """What the answer tokens are predicted from (N, C), and what they are."""
        states = self.states(**_inputs(batch, device)).flatten(0, 1)  # (B * T, C)
        answers = Answers(*(_sent(tensor, states.device) for tensor in batch.answers))
        return states.index_select(0, answers.places), answers

    def _losses(self, states: Tensor, answers: Answers, gradient: Tensor | None = None) -> Tensor:
        """Each sample's loss (B,); `gradient` (N, C) is filled with that of their sum by the states (N, C)."""
        wide = torch.promote_types(states.dtype, torch.float32)
        loss = torch.zeros(len(answers.counts), dtype=wide, device=states.device)
        size = max(1, LOGITS_AT_ONCE // self.vocabulary)
        for start in range(0, len(states), size):
            part = slice(start, start + size)
            read = states[part].detach().requires_grad_(gradient is not None)
            logits = self.logits(read)  # (n, V)
            log_p = torch.log_softmax(logits.detach(), -1, dtype=wide)
            target = answers.tokens[part].to(log_p.device)[:, None]
            samples = answers.samples[part]
            share = 1 / answers.counts[samples].to(wide)  # of a token in its sample's mean
            loss.index_add_(0, samples, -log_p.gather(1, target)[:, 0].to(loss.device) * share)
            if gradient is not None:
                d_logits = log_p.exp_().scatter_add_(1, target, -torch.ones_like(target, dtype=wide))  # p - onehot
                (d_read,) = torch.autograd.grad(logits, read, d_logits.to(logits.dtype))
                gradient[part] = d_read * share[:, None]
        return loss


def find_readout(model: PreTrainedModel, layout: HeadLayout | None = None) -> Readout:
    """The decoder and the head, apart, where their product is exactly what the model itself gives; else the model.

    Models differ in what they do to the logits behind the head (scaling, soft caps). The known forms are tried
    on a few tokens; a model that does something else gives its logits at every position, which costs memory only.
    With `layout` the same tokens are tried packed into one row, too.
    """
    config = model.config.get_text_config()
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is None:
        raise HeadnbError(f"{type(model).__name__} has no language-model head; load it with AutoModelForCausalLM")
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    if decoder is model:  # llama4 names its decoder in a way that get_decoder does not know
        decoder = getattr(model, "model", model)

    def states(**inputs: Any) -> Tensor:
        hidden: Tensor = decoder(**inputs, use_cache=False, return_dict=True).last_hidden_state
        return hidden

    def logits(hidden: Tensor) -> Tensor:
        return _behind_head(head(hidden), config)

    def whole(**inputs: Any) -> Tensor:
        given: Tensor = model(**inputs, use_cache=False, return_dict=True).logits
        return given

    tokens = torch.tensor([[0, 1, 2, 3], [0, 1, 3, 2]], device=input_device(model))
    with torch.no_grad(), frozen(model):
        expected = whole(input_ids=tokens)
        if expected.shape[1] != tokens.shape[1]:
            raise HeadnbError(f"{type(model).__name__} adds tokens of its own (prompt tuning?); it cannot be scored")
        _refuse_lookahead(model, expected)
        apart = Readout(states, logits, expected.shape[-1])
        try:
            same = torch.allclose(logits(states(input_ids=tokens)), expected, equal_nan=True)
        except (AttributeError, TypeError, ValueError, RuntimeError):
            same = False
        if not same:
            return Readout(whole, nn.Identity(), expected.shape[-1])
        return replace(apart, packs=layout is not None and _keeps_apart(model, layout, apart, tokens, expected))


def _keeps_apart(
    model: PreTrainedModel, layout: HeadLayout, readout: Readout, tokens: Tensor, expected: Tensor
) -> bool:
    """Whether the sequences `tokens` (B, T), packed into one row, give the logits (B, T, V) that they give alone."""
    if not can_pack(model, layout):
        return False
    lengths = (tokens.shape[1],) * len(tokens)
    row = Batch(tokens.reshape(1, -1), tokens.reshape(1, -1), lengths=lengths)
    try:
        with packed(model, layout, lengths):
            found = readout.logits(readout.states(**_inputs(row, tokens.device)))
    except (TypeError, ValueError, RuntimeError):
        return False
    rounding = torch.finfo(expected.dtype).eps ** 0.5 * expected.abs().max()
    return bool((found.view_as(expected) - expected).abs().max() <= rounding)


def _behind_head(logits: Tensor, config: Any) -> Tensor:
    """What known architectures do to the head's logits."""
    if (scale := getattr(config, "logit_scale", None)) is not None:  # cohere
        logits = logits * scale
    if (scale := getattr(config, "logits_scaling", None)) is not None:  # granite
        logits = logits / scale
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # gemma
        logits = torch.tanh(logits / cap) * cap
    return logits


def _refuse_lookahead(model: PreTrainedModel, logits: Tensor) -> None:
    """`logits` (2, 4, V) of two sequences whose first two tokens agree must agree there, up to rounding."""
    rounding = 2 * torch.finfo(logits.dtype).eps * logits.abs().max()
    if (logits[0, :2] - logits[1, :2]).abs().max() > rounding:
        raise HeadnbError(f"{type(model).__name__} sees later tokens: it is an encoder, and headnb scores decoders")


def _inputs(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    inputs = {"input_ids": _sent(batch.input_ids, device)}
    if batch.lengths is not None:
        positions = torch.cat([torch.arange(length) for length in batch.lengths])
        inputs["position_ids"] = _sent(positions[None], device)
    if batch.attention_mask is not None:
        mask = _sent(batch.attention_mask, device)
        inputs |= {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    return inputs


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the batch on the model's device; nobody waits for the copy where the device can read by itself."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

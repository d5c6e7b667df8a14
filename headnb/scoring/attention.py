"""The attention of one head on one sample: its matrix A (T, T), and A * dL/dA, entry by entry.

The scores need neither (see `headnb.scoring.gradient`), so they are made for the one head that somebody looks at:
A from the query, key and mask of its layer by the architecture's own eager function, and dL/dA = (dL/dO) V^T from the
gradient of the head's output. That takes O(T^2) memory, whichever kernel the model runs with. The result is checked:
A V must be what the model's own kernel gave as the head's output.

Older architectures compute attention in their own code and hand out the matrices of a layer's heads; there they, and
their gradients, are taken as they are.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headnb.call_checks import check_arguments
from headnb.display.colours import paint
from headnb.display.grid_text import format_number
from headnb.display.templating import render
from headnb.engine.attention_functions import observe_attention_calls
from headnb.engine.attention_weights import attention_of_head
from headnb.engine.batching import collate
from headnb.engine.hooks import find_head, find_heads, frozen, head_outputs, input_device
from headnb.engine.losses import find_loss_computer
from headnb.engine.threads import this_thread_only
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.head_names import head_name
from headnb.models.checks import check_gradients, context_length
from headnb.models.locks import model_lock
from headnb.tasks.loading import Task, load_task
from headnb.tasks.samples import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.attention_functions import AttentionCall
    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout
    from headnb.engine.tokenization import EncodedSample, EncodingName
    from headnb.tasks.samples import Id

_PRODUCT_LEGEND = "more of this weight would raise the loss (orange) or lower it (blue)"


@dataclass(frozen=True, eq=False)
class HeadAttention:
    """One head's attention on one sample of T tokens. Rows are queries, columns are keys."""

    head: str
    sample: Id
    tokens: tuple[str, ...]
    """The text of each token."""
    answer: np.ndarray
    """(T,) bool: the tokens of the answer, whose loss L is the mean of."""
    weights: np.ndarray
    """A (T, T)"""
    products: np.ndarray
    """A * dL/dA (T, T), in nats; their sum is the head's score."""
    loss: float
    """L, the sample's mean cross-entropy over its answer tokens, in nats."""

    @property
    def score(self) -> float:
        """The head's score on this sample, sum of A * dL/dA: signed, in nats."""
        return float(self.products.sum(dtype=np.float64))

    def _repr_html_(self) -> str:
        return _html(self)

    def __repr__(self) -> str:
        return (
            f"attention of {self.head} on sample {self.sample!r}: {len(self.tokens)} tokens, "
            f"score {self.score:.4g}, loss {self.loss:.4g}"
        )


@check_arguments
def head_attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    head: str,
    *,
    sample: Id | None = None,
    max_length: int | None = None,
    encoding: EncodingName = "official",
) -> HeadAttention:
    """The attention weights of one head on one sample, and how each of them bears on the loss.

    Args:
        model: as for `score_heads`; it is left as it was.
        tokenizer: its tokenizer; None if the samples are encoded already.
        task: a `Task`, or anything that `load_task` accepts.
        head: its name, L3H10.
        sample: the id of the sample; None: the first.
        max_length: cut a longer sample to so many tokens, as for `score_heads`.
        encoding: as for `score_heads`.

    Raises:
        HeadnbError: no such head or sample, or attention that cannot be computed again exactly.
    """
    task = task if isinstance(task, Task) else load_task(task)
    chosen = encode_task(
        task.only(task.ids[0] if sample is None else sample),
        tokenizer,
        encoding=encoding,
        max_length=max_length,
        context=context_length(model),
    )
    (encoded,) = chosen.samples
    batch = collate([encoded])
    with model_lock(model), frozen(model), torch.enable_grad():
        check_gradients(model)
        layout = find_heads(model)
        layer, number = find_head(head, layout)
        look = _through_interface if layer in dict(layout.attention) else _from_attention_module
        A, dA, loss = look(model, layout, layer, number, batch)
    return HeadAttention(
        head=head_name(layer, number),
        sample=chosen.ids[0],
        tokens=_texts(encoded, tokenizer),
        answer=encoded.labels != IGNORED,
        weights=A.cpu().numpy(),
        products=(A * dA).cpu().numpy(),
        loss=loss,
    )


def _texts(encoded: EncodedSample, tokenizer: PreTrainedTokenizerBase | None) -> tuple[str, ...]:
    ids = [int(token) for token in encoded.input_ids]
    if tokenizer is None:
        return tuple(map(str, ids))
    return tuple(str(tokenizer.decode([token])) for token in ids)


def _through_interface(
    model: PreTrainedModel, layout: HeadLayout, layer: int, head: int, batch: Batch
) -> tuple[Tensor, Tensor, float]:
    """A and dL/dA (T, T), and L, from what the layer's attention function is given."""
    loss_computer = find_loss_computer(model)
    calls: list[AttentionCall] = []
    taken: list[Tensor] = []

    def start_graph(at: int, outputs: Tensor) -> Tensor:
        if at != layer:
            return outputs
        taken.append(outputs.detach().requires_grad_())
        return taken[0]

    module = dict(layout.attention)[layer]
    with observe_attention_calls(model, {module: calls.append}), head_outputs(model, start_graph, layout, [layer]):
        loss = loss_computer.backward(batch, input_device(model))
    A, V = attention_of_head(calls[0], head)
    gradient = taken[0].grad
    assert gradient is not None  # noqa: S101  the loss depends on every layer
    dO = gradient[0, :, head].to(V)  # (T, D)
    return A, dO @ V.T, float(loss[0])


def _from_attention_module(
    model: PreTrainedModel, layout: HeadLayout, layer: int, head: int, batch: Batch
) -> tuple[Tensor, Tensor, float]:
    """A and dL/dA (T, T), and L, of an architecture whose attention modules return their matrices."""
    loss_computer = find_loss_computer(model)
    projection = dict(layout.projections)[layer]
    module = next(module for module in model.modules() if any(child is projection for child in module.children()))
    matrices: list[Tensor] = []

    def start_graph(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        if args:
            return (args[0].detach().requires_grad_(), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"].detach().requires_grad_()}

    def take(module: nn.Module, _: Any, returned: tuple[Any, ...]) -> None:
        weights = returned[1]
        length = batch.input_ids.shape[1]
        if weights is None or weights.shape != (1, layout.heads[layer], length, length):
            raise HeadnbError(
                f"{type(module).__name__} makes no attention matrix with this kernel; "
                "load the model with attn_implementation='eager'"
            )
        weights.retain_grad()
        matrices.append(weights)

    with ExitStack() as hooks:
        hooks.callback(module.register_forward_pre_hook(this_thread_only(start_graph), with_kwargs=True).remove)
        hooks.callback(module.register_forward_hook(this_thread_only(take)).remove)
        loss = loss_computer.backward(batch, input_device(model))
    (A,) = matrices
    assert A.grad is not None  # noqa: S101  the loss depends on every layer
    return A[0, head].detach(), A.grad[0, head], float(loss[0])


def _html(attention: HeadAttention) -> str:
    """The tokens twice, without script: how much the answer's predictions look at each, and what that is worth.

    A token is predicted at the position before it, so the rows that count are those before the answer's tokens.
    """
    predicting = np.flatnonzero(attention.answer[1:])
    looked_at, worth = attention.weights[predicting].mean(0), attention.products.sum(0)  # (T,), (T,)
    parts = [
        ("Attention weight A of each token, mean over the predictions of the answer", _shaded(attention, looked_at)),
        (f"A · dL/dA, sum over queries: {_PRODUCT_LEGEND}", _shaded(attention, worth)),
    ]
    head, score, loss = attention.head, format_number(attention.score), format_number(attention.loss)
    return render("attention.html", head=head, sample=repr(attention.sample), score=score, loss=loss, parts=parts)


def _shaded(attention: HeadAttention, values: np.ndarray) -> list[tuple[str, str, str, bool]]:
    """Each token, its value, a background as strong as its share of the largest value, and whether it is answer."""
    largest = float(np.abs(values).max()) or 1.0
    shades = [paint(value, (-largest, largest)) for value in values.tolist()]
    colours = [f"{shade.colour}{round(255 * 0.8 * shade.opacity):02x}" for shade in shades]
    return list(
        zip(attention.tokens, map(format_number, values.tolist()), colours, attention.answer.tolist(), strict=True)
    )

"""Attention of one head on one sample: its matrix A (T, T) and the products A * dL/dA.

Scores need neither (see `headnb.scoring.gradient`), so both are computed only for the head that the user inspects. The
architecture's eager function computes A from the query, key and mask of the layer. dL/dA = (dL/dO) V^T comes from the
gradient of the head's output. This takes O(T^2) memory with every attention kernel. The result is checked: A V must
equal the head's output from the model's own kernel.

Older architectures compute attention in their own code and return the matrices of a layer's heads. For these, the
returned matrices and their gradients are used.
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
from headnb.engine.attention_weights import attention_of_head, returned_weights
from headnb.engine.batching import collate
from headnb.engine.hooks import find_head, find_heads, head_outputs, input_device
from headnb.engine.layout import parent_of
from headnb.engine.losses import find_loss_computer
from headnb.engine.model_contexts import frozen
from headnb.engine.threads import this_thread_only
from headnb.head_names import head_name
from headnb.models.checks import check_gradients
from headnb.models.locks import model_lock
from headnb.scoring.checks import checked_task
from headnb.tasks.loading import Task, load_task
from headnb.tasks.row_values import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.attention_functions import AttentionCall
    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout
    from headnb.engine.tokenization import EncodedSample, EncodingName
    from headnb.tasks.samples import Id

_PRODUCT_LEGEND = "a larger weight raises the loss (orange) or lowers it (blue)"


@dataclass(frozen=True, eq=False)
class HeadAttention:
    """Attention of one head on one sample of T tokens. Rows are queries, columns are keys."""

    head: str
    sample: Id
    tokens: tuple[str, ...]
    """The text of each token."""
    answer: np.ndarray
    """(T,) bool: True for the answer tokens, over which the loss L is averaged."""
    weights: np.ndarray
    """A (T, T)"""
    products: np.ndarray
    """A * dL/dA (T, T), in nats; the sum is the head's score."""
    loss: float
    """L, the sample's mean cross-entropy over its answer tokens, in nats."""

    @property
    def score(self) -> float:
        """The head's signed score on this sample, the sum of A * dL/dA, in nats."""
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
    """Compute one head's attention weights on one sample, and the effect of each weight on the loss.

    Args:
        model: as for `score_heads`; it is not changed.
        tokenizer: the model's tokenizer; None if the samples are already encoded.
        task: a `Task`, or anything that `load_task` accepts.
        head: head name, such as L3H10.
        sample: id of the sample; None: the first.
        max_length: truncate a longer sample to this number of tokens, as for `score_heads`.
        encoding: as for `score_heads`.

    Raises:
        HeadnbError: no such head or sample, or the recomputed attention does not reproduce the model's output.
    """
    task = task if isinstance(task, Task) else load_task(task)
    single = task.only(task.ids[0] if sample is None else sample)
    chosen = checked_task(model, tokenizer, single, encoding=encoding, max_length=max_length).encoded
    (encoded,) = chosen.samples
    batch = collate([encoded])
    with model_lock(model), frozen(model), torch.enable_grad():
        check_gradients(model)
        layout = find_heads(model)
        layer, number = find_head(head, layout)
        compute = _through_interface if layer in dict(layout.attention) else _from_attention_module
        A, dA, loss = compute(model, layout, layer, number, batch)  # (T, T), (T, T)
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
    """A and dL/dA (T, T), and L, computed from the arguments of the layer's attention function."""
    loss_computer = find_loss_computer(model)
    calls: list[AttentionCall] = []
    graph_start: list[Tensor] = []

    def start_graph(at: int, outputs: Tensor) -> Tensor:
        if at != layer:
            return outputs
        graph_start.append(outputs.detach().requires_grad_())
        return graph_start[0]

    module = dict(layout.attention)[layer]
    with observe_attention_calls(model, {module: calls.append}), head_outputs(model, start_graph, layout, [layer]):
        loss = loss_computer.backward(batch, input_device(model))
    A, V = attention_of_head(calls[0], head)
    gradient = graph_start[0].grad  # (1, T, H, D)
    assert gradient is not None  # noqa: S101  the loss depends on every layer
    dO = gradient[0, :, head].to(V)  # (T, D)
    return A, dO @ V.T, float(loss[0])


def _from_attention_module(
    model: PreTrainedModel, layout: HeadLayout, layer: int, head: int, batch: Batch
) -> tuple[Tensor, Tensor, float]:
    """A and dL/dA (T, T), and L, for an architecture whose attention modules return their matrices."""
    loss_computer = find_loss_computer(model)
    module = parent_of(model, dict(layout.projections)[layer])
    matrices: list[Tensor] = []

    def start_graph(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        if args:
            return (args[0].detach().requires_grad_(), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"].detach().requires_grad_()}

    def take(module: nn.Module, _: Any, returned: tuple[Any, ...]) -> None:
        weights = returned_weights(module, returned, layout.heads[layer])
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
    """The tokens twice: shaded by the attention of the answer's predictions, and by the summed products. No script.

    A token is predicted at the position before it, so the mean is over the rows before the answer tokens.
    """
    predicting = np.flatnonzero(attention.answer[1:])
    mean_weights, products = attention.weights[predicting].mean(0), attention.products.sum(0)  # (T,), (T,)
    parts = [
        (
            "Attention weight A of each token, mean over the positions that predict the answer",
            _shaded(attention, mean_weights),
        ),
        (f"A · dL/dA, sum over queries: {_PRODUCT_LEGEND}", _shaded(attention, products)),
    ]
    head, score, loss = attention.head, format_number(attention.score), format_number(attention.loss)
    return render("attention.html", head=head, sample=repr(attention.sample), score=score, loss=loss, parts=parts)


def _shaded(attention: HeadAttention, values: np.ndarray) -> list[tuple[str, str, str, bool]]:
    """For each token: text, value, a background by the value relative to the largest, and whether it is answer."""
    largest = float(np.abs(values).max()) or 1.0
    shades = [paint(value, (-largest, largest)) for value in values.tolist()]
    colours = [f"{shade.colour}{round(255 * 0.8 * shade.opacity):02x}" for shade in shades]
    return list(
        zip(attention.tokens, map(format_number, values.tolist()), colours, attention.answer.tolist(), strict=True)
    )

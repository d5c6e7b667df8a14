"""Effect of ablating or scaling heads on a task: the change of each sample's loss, and greedy text before and after.

The loss of each sample is computed twice, with the unmodified model and with the outputs of the heads multiplied by a
factor, so the change is paired. `controls` compares the change with that of the same number of random heads of the same
layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.call_checks import check_arguments
from headnb.engine.generation import continuation_text, continue_greedily
from headnb.engine.hooks import find_head, find_heads, input_device
from headnb.engine.interventions import replace_heads
from headnb.engine.losses import batch_context, find_loss_computer, plan_passes
from headnb.engine.model_contexts import frozen
from headnb.engine.partial_forward import PartialForward, find_partial_forward
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.head_names import head_name, parse_heads
from headnb.models.checks import model_name
from headnb.models.locks import model_lock
from headnb.models.provenance import weights_source
from headnb.scoring.checks import check_loaded, check_tokens, checked_task
from headnb.scoring.progress_bars import counted, with_progress_bar
from headnb.stats.significance import t_intervals
from headnb.tasks.loading import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.layout import HeadLayout
    from headnb.engine.tokenization import EncodedTask, EncodingName
    from headnb.tasks.samples import Id


@check_arguments
@with_progress_bar(counted("ablating"))
def ablate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    heads: str | Iterable[str],
    factor: float = 0.0,
    *,
    controls: int = 0,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    level: float = 0.95,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Compute every sample's loss before and after the outputs of some heads are multiplied by a factor.

    Args:
        model: as for `score_heads`; it is not changed.
        tokenizer: the model's tokenizer; None if the samples are already encoded.
        task: a `Task`, or anything that `load_task` accepts.
        heads: head names, "L3H5,L7H1" or ["L3H5", "L7H1"].
        factor: 0 ablates the heads, 1 leaves them unchanged.
        controls: number of random sets that are scaled for comparison, each with as many other heads of the same
            layers.
        batch_tokens: maximum number of tokens in a batch, padding included.
        max_length: truncate longer samples to this number of tokens.
        encoding: as for `score_heads`.
        level: confidence level of the interval.
        seed: seed of the controls and of the processing order.
        on_progress: called with the number of samples done and the total; an exception raised in it stops the call.
            None: a progress bar in notebooks and terminals.

    Returns:
        A Dataset with `loss_before`, `loss_after` and `change` (sample), in nats; `mean_change` with its Student's t
        interval `low`, `high` over samples; and `control_change` (control), the mean change for each random set
        `control_heads`.

    Raises:
        HeadnbError: no such head, bad input, or too few other heads for controls.
    """
    task, encoded = checked_task(model, tokenizer, task, encoding=encoding, max_length=max_length)
    with model_lock(model), frozen(model):
        layout = find_heads(model)
        chosen = checked_heads(heads, layout)
        drawn = _controls(chosen, layout, controls, seed)
        sets = [Replacement((), factor), *(Replacement(tuple(heads), factor) for heads in (chosen, *drawn))]
        losses = losses_with_heads_replaced(model, encoded, sets, layout, batch_tokens, seed, on_progress)
    attrs = {
        "model": model_name(model),
        **weights_source(model),
        "task": task.name,
        "heads": ",".join(chosen),
        "factor": float(factor),
        "units": "nats",
        "encoding": encoding,
        "seed": seed,
    }
    return _comparison(encoded, losses, level, drawn).assign_attrs(attrs)


def checked_heads(heads: str | Iterable[str], layout: HeadLayout) -> list[str]:
    """Head names in canonical form, without duplicates, in the given order.

    Raises:
        HeadnbError: no head is named, or the model does not have one of them.
    """
    named = dict.fromkeys(head_name(layer, head) for layer, head in parse_heads(heads))
    for name in named:
        find_head(name, layout)
    return list(named)


def _controls(chosen: list[str], layout: HeadLayout, count: int, seed: int) -> list[list[str]]:
    """`count` random sets of equally many heads of the same layers, without the chosen heads."""
    if count < 0:
        raise HeadnbError(f"controls must be at least 0, not {count}")
    random = np.random.default_rng(seed)
    pairs = parse_heads(chosen)
    layers = sorted({layer for layer, _ in pairs})
    others = {layer: [head for head in range(layout.heads[layer]) if (layer, head) not in pairs] for layer in layers}
    wanted = {layer: sum(at == layer for at, _ in pairs) for layer in layers}
    if count and (short := [layer for layer in layers if wanted[layer] > len(others[layer])]):
        raise HeadnbError(f"not enough heads left in layer {short[0]} for random controls; use controls=0")
    return [
        [
            head_name(layer, int(head))
            for layer in layers
            for head in sorted(random.choice(others[layer], wanted[layer], replace=False))
        ]
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Replacement:
    """Replacement of some heads' outputs O by factor * O + value; see `headnb.engine.interventions`."""

    heads: tuple[str, ...]
    factor: float = 0.0
    values: Mapping[int, Tensor] | None = None
    """layer -> (H, D); None: zeros."""

    @property
    def factors(self) -> dict[str, float]:
        """Head name -> factor."""
        return dict.fromkeys(self.heads, self.factor)

    def __str__(self) -> str:
        if not self.heads:
            return "with the unmodified model"
        how = f"scaled by {self.factor:g}" if self.values is None else "replaced by their mean outputs"
        return f"with {','.join(self.heads)} {how}"


def losses_with_heads_replaced(
    model: PreTrainedModel,
    encoded: EncodedTask,
    sets: Sequence[Replacement],
    layout: HeadLayout,
    batch_tokens: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None,
) -> np.ndarray:
    """Losses (sets, n), float64, of each sample with each set of heads replaced.

    All sets run on the same batches, so the losses of a sample are paired. Samples are packed where `score_heads` would
    pack them. The layers below the lowest replaced head run once for all sets. The caller locks and freezes the model.

    Raises:
        HeadnbError: a loss is not finite.
    """
    loss_computer, device = find_loss_computer(model, layout), input_device(model)
    batches, make_batch = plan_passes(model, loss_computer, encoded.lengths, batch_tokens, seed=seed)
    lowest = [_lowest_layer(replacement, layout) for replacement in sets]
    # `find_partial_forward` runs one short pass per layer, so it must save more passes than that.
    worth_it = len(sets) * len(batches) > len(layout.heads)
    partial_forward = find_partial_forward(model, layout) if worth_it else PartialForward(())
    losses = np.full((len(sets), len(encoded.samples)), np.nan)
    done = 0
    for positions in batches:
        batch = make_batch([encoded.samples[position] for position in positions])
        with batch_context(model, layout, batch), partial_forward.record_outputs() as hidden:
            unmodified = loss_computer.losses(batch, device)
        for row, (replacement, layer) in enumerate(zip(sets, lowest, strict=True)):
            if on_progress is not None:
                on_progress(done, len(encoded.samples))
            with (
                batch_context(model, layout, batch),
                replace_heads(model, replacement.factors, layout, replacement.values),
                partial_forward.start_at(layer, hidden),
            ):
                replaced = loss_computer.losses(batch, device) if replacement.heads else unmodified
            losses[row, positions] = replaced.double().cpu().numpy()
        done += len(positions)
    if on_progress is not None:
        on_progress(done, done)
    if not np.isfinite(losses).all():
        row, position = np.argwhere(~np.isfinite(losses))[0]
        raise HeadnbError(f"the loss of sample {encoded.ids[position]!r} {sets[row]} is {losses[row, position]}")
    return losses


def _lowest_layer(replacement: Replacement, layout: HeadLayout) -> int:
    """The layer at which a pass may start; 0 if nothing is replaced."""
    return min((find_head(name, layout)[0] for name in replacement.heads), default=0)


def _comparison(encoded: EncodedTask, losses: np.ndarray, level: float, controls: list[list[str]]) -> xr.Dataset:
    """Labelled comparison of losses (sets, n): of the unmodified model, the chosen heads, and each control."""
    before, after, *of_controls = losses
    interval = t_intervals((after - before)[:, None], level)
    return xr.Dataset(
        {
            "loss_before": ("sample", before),
            "loss_after": ("sample", after),
            "change": ("sample", after - before),
            "answer_tokens": ("sample", encoded.answer_tokens.astype(np.int32)),
            "mean_change": ((), float(interval.mean[0])),
            "low": ((), float(interval.low[0])),
            "high": ((), float(interval.high[0])),
            "control_change": ("control", np.array([(control - before).mean() for control in of_controls])),
            "control_heads": ("control", np.array([",".join(names) for names in controls], dtype=str)),
        },
        coords={"sample": list(encoded.ids)},
        attrs={
            "level": level,
            "samples": len(encoded.ids),
            "left_out": len(encoded.left_out),
            "truncated": encoded.truncated,
            **encoded.notices,
        },
    )


@dataclass(frozen=True)
class Generation:
    """Greedy text of a model after a sample's prompt."""

    sample: Id
    prompt: str
    before: str
    after: str
    """Text with the heads scaled."""


@check_arguments
def generate_both(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task | Any,
    heads: str | Iterable[str],
    factor: float = 0.0,
    *,
    sample: Id | None = None,
    max_new_tokens: int = 40,
    encoding: EncodingName = "official",
    on_token: Callable[[], None] | None = None,
) -> Generation:
    """Generate greedy text after one sample's prompt, with the unmodified model and with heads scaled.

    Args:
        model: as for `score_heads`; it is not changed.
        tokenizer: the model's tokenizer.
        task: a `Task` or anything that `load_task` accepts.
        heads: as for `ablate`.
        factor: as for `ablate`.
        sample: id of the sample whose prompt is continued; None: the first.
        max_new_tokens: maximum number of tokens to generate, at least 1; fewer where the model's context ends.
        encoding: as for `score_heads`.
        on_token: called for every token; an exception raised in it stops the call.

    Raises:
        HeadnbError: no such head or sample, no tokenizer, or a sample without a prompt or with one that is longer than
            the model's context.
    """
    check_loaded(model, tokenizer)
    if tokenizer is None:
        raise HeadnbError("generate_both needs the model's tokenizer")
    task = task if isinstance(task, Task) else load_task(task)
    single = task.only(task.ids[0] if sample is None else sample)
    encoded = encode_task(single, tokenizer, encoding=encoding)
    check_tokens(encoded, model)
    prompt = encoded.samples[0].prompt
    if not len(prompt):
        raise HeadnbError(f"sample {single.ids[0]!r} has no prompt to continue")

    def generate() -> str:
        (row,) = continue_greedily(
            model, tokenizer, [prompt], max_new_tokens, on_token=lambda _: on_token and on_token()
        )
        return continuation_text(tokenizer, row)

    with model_lock(model), frozen(model):
        layout = find_heads(model)
        chosen = checked_heads(heads, layout)
        before = generate()
        with replace_heads(model, dict.fromkeys(chosen, factor), layout):
            after = generate()
    return Generation(single.ids[0], str(tokenizer.decode(prompt)), before, after)

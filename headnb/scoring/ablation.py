"""What becomes of a task when heads are taken out of a model, or scaled: losses, and greedy text before and after.

Each sample's loss is taken twice, with the model as it is and with the heads' outputs multiplied by a factor, so the
change is paired. A change says more beside that of as many other heads drawn from the same layers: `controls`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.call_checks import check_arguments
from headnb.engine.batching import collate, pack, plan_batches
from headnb.engine.generation import continuation_text, continue_greedily
from headnb.engine.hooks import find_head, find_heads, frozen, input_device, scale_heads
from headnb.engine.interventions import replace_heads
from headnb.engine.losses import batch_context, find_loss_computer
from headnb.engine.packing import max_batch_tokens, packing_is_faster
from headnb.engine.partial_forward import PartialForward, find_partial_forward
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.head_names import head_name, parse_heads
from headnb.models.checks import context_length, model_name
from headnb.models.locks import model_lock
from headnb.models.provenance import weights_source
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
    """The loss of every sample before and after some heads' outputs are multiplied by a factor.

    Args:
        model: as for `score_heads`; it is left as it was.
        tokenizer: its tokenizer; None if the samples are encoded already.
        task: a `Task`, or anything that `load_task` accepts.
        heads: their names, "L3H5,L7H1" or ["L3H5", "L7H1"].
        factor: 0 takes the heads out, 1 leaves them as they are.
        controls: so many times as many other heads are drawn from the same layers and scaled instead.
        batch_tokens: tokens of a batch, padding included.
        max_length: cut longer samples to so many tokens.
        encoding: as for `score_heads`.
        level: of the interval.
        seed: of the controls, and of the order of work.
        on_progress: called with the number of samples done and their total; raising in it stops the work.

    Returns:
        A Dataset with `loss_before`, `loss_after` and `change` (sample), in nats; their means' difference
        `mean_change` with its Student's t interval `low`, `high` over samples; and `control_change` (control), the
        mean change for each drawing of `control_heads`.

    Raises:
        HeadnbError: no such head, bad input, or no other heads to draw controls from.
    """
    task = task if isinstance(task, Task) else load_task(task)
    encoded = encode_task(task, tokenizer, encoding=encoding, max_length=max_length, context=context_length(model))
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
    """Head names in their usual form, each once, in the order given.

    Raises:
        HeadnbError: no name at all, or one that the model does not have.
    """
    named = dict.fromkeys(head_name(*place) for place in parse_heads(heads))
    for name in named:
        find_head(name, layout)
    return list(named)


def _controls(chosen: list[str], layout: HeadLayout, count: int, seed: int) -> list[list[str]]:
    """`count` drawings of as many heads from the same layers, none of them chosen."""
    if count < 0:
        raise HeadnbError(f"controls must be at least 0, not {count}")
    random = np.random.default_rng(seed)
    places = parse_heads(chosen)
    layers = sorted({layer for layer, _ in places})
    others = {layer: [head for head in range(layout.heads[layer]) if (layer, head) not in places] for layer in layers}
    wanted = {layer: sum(at == layer for at, _ in places) for layer in layers}
    if count and (short := [layer for layer in layers if wanted[layer] > len(others[layer])]):
        raise HeadnbError(f"layer {short[0]} has too few other heads to draw controls from; use controls=0")
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
    """What becomes of some heads' outputs O: factor * O + value; see `headnb.engine.interventions`."""

    heads: tuple[str, ...]
    factor: float = 0.0
    values: Mapping[int, Tensor] | None = None
    """layer -> (H, D); None: zeros."""

    def __str__(self) -> str:
        if not self.heads:
            return "of the model as it is"
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
    """Loss of each sample with each set of heads replaced, (sets, n) float64; batch by batch, so that each is paired.

    Samples are packed where `score_heads` would, and the layers below the lowest replaced head run once for all sets.
    The model is to be frozen, and locked.

    Raises:
        HeadnbError: a loss is not finite.
    """
    loss_computer, device = find_loss_computer(model, layout), input_device(model)
    packing = loss_computer.supports_packing and packing_is_faster(model)
    most = max_batch_tokens(model, batch_tokens, packed=packing)
    plan = plan_batches(encoded.lengths, batch_tokens=most, packed=packing, seed=seed)
    batches, lowest = plan.batches(), [_lowest_layer(each, layout) for each in sets]
    # To find out whether passes can begin in the middle takes as many short passes as there are layers.
    worth_it = len(sets) * len(batches) > len(layout.heads)
    partial_forward = find_partial_forward(model, layout) if worth_it else PartialForward(())
    losses = np.full((len(sets), len(encoded.samples)), np.nan)
    done = 0
    for places in batches:
        positions = plan.order[places]
        samples = [encoded.samples[position] for position in positions]
        batch = pack(samples) if packing else collate(samples)
        with batch_context(model, layout, batch), partial_forward.record_outputs() as hidden:
            whole = loss_computer.losses(batch, device)
        for row, (each, layer) in enumerate(zip(sets, lowest, strict=True)):
            if on_progress is not None:
                on_progress(done, len(encoded.samples))
            with (
                batch_context(model, layout, batch),
                replace_heads(model, each.heads, layout, each.factor, each.values),
                partial_forward.start_at(layer, hidden),
            ):
                found = loss_computer.losses(batch, device) if each.heads else whole
            losses[row, positions] = found.double().cpu().numpy()
        done += len(positions)
    if on_progress is not None:
        on_progress(done, done)
    if not np.isfinite(losses).all():
        row, position = np.argwhere(~np.isfinite(losses))[0]
        raise HeadnbError(f"the loss of sample {encoded.ids[position]!r} {sets[row]} is {losses[row, position]}")
    return losses


def _lowest_layer(replacement: Replacement, layout: HeadLayout) -> int:
    """The layer that a pass may begin at; 0 where nothing is replaced."""
    return min((find_head(name, layout)[0] for name in replacement.heads), default=0)


def _comparison(encoded: EncodedTask, losses: np.ndarray, level: float, controls: list[list[str]]) -> xr.Dataset:
    """Losses (sets, n) of the model as it is, of the chosen heads and of each control, as a labelled comparison."""
    before, after, *of_controls = losses
    found = t_intervals((after - before)[:, None], level)
    return xr.Dataset(
        {
            "loss_before": ("sample", before),
            "loss_after": ("sample", after),
            "change": ("sample", after - before),
            "answer_tokens": ("sample", encoded.answer_tokens.astype(np.int32)),
            "mean_change": ((), float(found.mean[0])),
            "low": ((), float(found.low[0])),
            "high": ((), float(found.high[0])),
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
    """What a model writes after a sample's prompt, token by token the most probable one."""

    sample: Id
    prompt: str
    before: str
    after: str
    """With the heads scaled."""


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
    on_token: Callable[[], None] | None = None,
) -> Generation:
    """Greedy text after one sample's prompt, with the model as it is and with heads scaled.

    Args:
        model: as for `score_heads`; it is left as it was.
        tokenizer: its tokenizer.
        task: a `Task` or anything that `load_task` accepts.
        heads: as for `ablate`.
        factor: as for `ablate`.
        sample: the id of the sample whose prompt is continued; None: the first.
        max_new_tokens: when to stop at the latest.
        on_token: called for every token; raising in it stops the work.

    Raises:
        HeadnbError: no such head or sample, or a sample without a prompt.
    """
    task = task if isinstance(task, Task) else load_task(task)
    one = task.only(task.ids[0] if sample is None else sample)
    encoded = encode_task(one, tokenizer).samples[0]
    prompt = encoded.prompt
    if not len(prompt):
        raise HeadnbError(f"sample {one.ids[0]!r} has no prompt to continue")

    def written() -> str:
        (row,) = continue_greedily(
            model, tokenizer, [prompt], max_new_tokens, on_token=lambda _: on_token and on_token()
        )
        return continuation_text(tokenizer, row)

    with model_lock(model), frozen(model):
        chosen = checked_heads(heads, find_heads(model))
        before = written()
        with scale_heads(model, dict.fromkeys(chosen, factor)):
            after = written()
    return Generation(one.ids[0], str(tokenizer.decode(prompt)), before, after)

"""How good a model is on a task: the loss of each sample, and whether its greedy answer is the right one.

Generated text is only read (`answers`), never executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy import stats

from headnb.call_checks import check_arguments, checked_level
from headnb.engine.batching import collate, plan_batches
from headnb.engine.generation import continuation_text, continue_greedily
from headnb.engine.hooks import frozen, input_device
from headnb.engine.losses import find_loss_computer
from headnb.engine.packing import max_batch_tokens
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.models.checks import context_length, model_name
from headnb.models.locks import model_lock
from headnb.models.provenance import weights_source
from headnb.stats.significance import t_intervals
from headnb.tasks.loading import Task, load_task
from headnb.tasks.samples import IGNORED
from headnb.tuning.answers import NO_ANSWER, find_answer_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.tokenization import EncodedSample, EncodedTask, EncodingName
    from headnb.tasks.samples import Id
    from headnb.tuning.answers import AnswerForm, Reader


@check_arguments
def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    *,
    answer: str | Reader = "auto",
    max_new_tokens: int = 256,
    batch_size: int = 16,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    level: float = 0.95,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Loss and exact match of every sample of a task.

    Exact match: the prompt is continued greedily, up to an end-of-sequence token or to where the answer is complete,
    and the answer read from that text is the one read from the sample's completion.

    Args:
        model: as for `score_heads`; it is left as it was.
        tokenizer: its tokenizer; None if the samples are encoded already: then there are losses only.
        task: a `Task`, or anything that `load_task` accepts.
        answer: how answers are read: a name in `answers.FORMS`, a function from a completion to its answer, or "none"
            for losses only. "auto": as the registry says of the task, else "number" if all completions are numbers,
            else "text". Code is compared as text; where that says nothing (mbpp), there is no exact match.
        max_new_tokens: where a text is cut off.
        batch_size: prompts that are continued together.
        batch_tokens: tokens of a batch for the losses, padding included.
        max_length: cut longer samples to so many tokens for the losses.
        encoding: as for `score_heads`.
        level: of the intervals.
        seed: of the order of work.
        on_progress: called with the number of samples done and their total; raising in it stops the work.

    Returns:
        A Dataset with `loss` in nats and `answer_tokens` (sample); `exact_match` (sample), 1, 0 or NaN where there is
        no answer to compare; `expected`, `prediction`, the answers, and `generated`, the whole text (sample); whether
        it `ended` by itself (sample); and the means `mean_loss` with its Student's t interval `loss_low`, `loss_high`,
        `accuracy` with its Wilson interval `accuracy_low`, `accuracy_high`. `.attrs["summary"]` says it in a line.

    Raises:
        HeadnbError: bad input, or a loss that is not finite.
    """
    level = checked_level(level, "level")
    for name, count in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if count < 1:
            raise HeadnbError(f"{name} must be at least 1, not {count}")
    task = task if isinstance(task, Task) else load_task(task)
    encoded = encode_task(task, tokenizer, encoding=encoding, max_length=max_length, context=context_length(model))
    total = len(encoded.samples)
    questions = _questions(task, tokenizer, encoded, encoding)
    form = find_answer_form(answer, task.name, [question.completion for question in questions]) if questions else None

    def report(done: int) -> None:
        if on_progress is not None:
            on_progress(done, total)

    with model_lock(model), frozen(model):
        losses = _losses(model, encoded, batch_tokens, seed, lambda done: report(0 if form else done))
        if form is None or tokenizer is None:
            columns = _empty_answers(total)
        else:
            columns = _compare_answers(model, tokenizer, questions, form, max_new_tokens, batch_size, report)
    report(total)
    result = xr.Dataset(
        {
            "loss": ("sample", losses),
            "answer_tokens": ("sample", encoded.answer_tokens.astype(np.int32)),
            **{name: ("sample", values) for name, values in columns.items()},
            **_means(losses, columns["exact_match"], level),
        },
        coords={"sample": list(encoded.ids)},
        attrs={
            "model": model_name(model),
            **weights_source(model),
            "task": task.name,
            "answer": f"{form.name}: {form.meaning}" if form else NO_ANSWER,
            "units": "nats",
            "level": level,
            "samples": total,
            "left_out": len(encoded.left_out),
            "truncated": encoded.truncated,
            **encoded.notices,
            "encoding": encoding,
            "max_new_tokens": max_new_tokens,
        },
    )
    result.attrs["summary"] = summary(result)
    return result


def summary(evaluation: xr.Dataset) -> str:
    """An evaluation in a line: means with their intervals, and what keeps the numbers from saying more."""
    attrs = evaluation.attrs
    loss, low, high = (float(evaluation[name]) for name in ("mean_loss", "loss_low", "loss_high"))
    known = int(evaluation["exact_match"].count())
    interval = "" if np.isnan(low) else f" ({attrs['level']:.0%} interval {low:.3g} to {high:.3g})"
    parts = [f"loss {loss:.3g} nats{interval}"]
    if known:
        share, low, high = (100 * float(evaluation[name]) for name in ("accuracy", "accuracy_low", "accuracy_high"))
        parts.append(f"exact match {share:.3g} % ({low:.3g} to {high:.3g}), {known} answers compared")
        if cut := known - int(evaluation["ended"].sum()):
            parts.append(f"{cut} cut off at {attrs['max_new_tokens']} tokens")
    else:
        parts.append("no exact match: this task has no answer that can be compared as text")
    return f"{attrs['model']} on {attrs['samples']} samples of {attrs['task']}: {'; '.join(parts)}"


@dataclass(frozen=True)
class _Question:
    """What a model is asked, and what the sample itself answers."""

    prompt: np.ndarray  # (T,)
    completion: str


def _questions(
    task: Task, tokenizer: PreTrainedTokenizerBase | None, encoded: EncodedTask, encoding: EncodingName
) -> list[_Question]:
    """One for each encoded sample, whole where `max_length` cuts the sample; none without a tokenizer."""
    if tokenizer is None:
        return []
    whole = encode_task(task, tokenizer, encoding=encoding) if encoded.truncated else encoded
    samples: dict[Id, EncodedSample] = dict(zip(whole.ids, whole.samples, strict=True))
    questions = []
    for key in encoded.ids:
        answer = samples[key].labels != IGNORED
        start = int(answer.argmax())
        length = int(np.append(~answer[start:], True).argmax())  # up to the next turn, if there is one
        completion = tokenizer.decode(samples[key].labels[start : start + length], skip_special_tokens=True)
        questions.append(_Question(samples[key].prompt, str(completion)))
    return questions


def _losses(
    model: PreTrainedModel, encoded: EncodedTask, batch_tokens: int, seed: int, tick: Callable[[int], None]
) -> np.ndarray:
    """Loss of each sample (n,) float64, by forward passes alone."""
    loss_computer, device = find_loss_computer(model), input_device(model)
    plan = plan_batches(encoded.lengths, batch_tokens=max_batch_tokens(model, batch_tokens), seed=seed)
    losses = np.full(len(encoded.samples), np.nan)
    for places in plan.batches():
        tick(int(places[0]))
        positions = plan.order[places]
        batch = collate([encoded.samples[position] for position in positions])
        losses[positions] = loss_computer.losses(batch, device).double().cpu().numpy()
    if len(broken := np.flatnonzero(~np.isfinite(losses))):
        raise HeadnbError(f"the loss of sample {encoded.ids[broken[0]]!r} is {losses[broken[0]]}")
    return losses


def _compare_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[_Question],
    form: AnswerForm,
    most: int,
    batch_size: int,
    report: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """What the model answers beside what the samples do; a sample without a prompt is not asked."""
    asked = [place for place, question in enumerate(questions) if len(question.prompt)]
    prompts = [questions[place].prompt for place in asked]
    written = continue_greedily(
        model, tokenizer, prompts, most, batch_size=batch_size, is_complete=form.is_complete, on_token=report
    )
    texts, ended = [""] * len(questions), np.zeros(len(questions), bool)
    for place, row in zip(asked, written, strict=True):
        texts[place], ended[place] = continuation_text(tokenizer, row), row.ended
    expected = np.array([form.answer(question.completion) for question in questions], str)
    predicted = np.array([form.answer(generated) for generated in texts], str)
    known = (expected != "") & np.isin(np.arange(len(questions)), asked)
    return {
        "exact_match": np.where(known, expected == predicted, np.nan),
        "expected": expected,
        "prediction": predicted,
        "generated": np.array(texts, str),
        "ended": ended,
    }


def _empty_answers(samples: int) -> dict[str, np.ndarray]:
    empty = np.full(samples, "")
    return {
        "exact_match": np.full(samples, np.nan),
        "expected": empty,
        "prediction": empty,
        "generated": empty,
        "ended": np.zeros(samples, bool),
    }


def _means(losses: np.ndarray, exact_match: np.ndarray, level: float) -> dict[str, float]:
    loss = t_intervals(losses[:, None], level)
    known = exact_match[~np.isnan(exact_match)]
    share, low, high = np.nan, np.nan, np.nan
    if len(known):
        share = float(known.mean())
        low, high = stats.binomtest(int(known.sum()), len(known)).proportion_ci(level, method="wilson")
    return {
        "mean_loss": float(loss.mean[0]),
        "loss_low": float(loss.low[0]),
        "loss_high": float(loss.high[0]),
        "accuracy": share,
        "accuracy_low": float(low),
        "accuracy_high": float(high),
    }

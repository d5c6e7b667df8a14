"""Evaluation of a model on a task: the loss and the exact match of each sample.

Answers are extracted from generated text (`answers`), which is never executed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
import xarray as xr

from headnb.call_checks import check_arguments
from headnb.engine.batching import collate, plan_batches
from headnb.engine.generation import continuation_text, continue_greedily
from headnb.engine.hooks import input_device
from headnb.engine.losses import find_loss_computer
from headnb.engine.model_contexts import frozen
from headnb.engine.packing import max_batch_tokens
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.models.checks import model_name
from headnb.models.locks import model_lock
from headnb.models.provenance import weights_source
from headnb.scoring.checks import checked_task
from headnb.scoring.progress_bars import counted, with_progress_bar
from headnb.stats.significance import t_intervals
from headnb.tasks.row_values import IGNORED
from headnb.tuning.answers import NO_ANSWER, find_answer_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.tokenization import EncodedSample, EncodedTask, EncodingName
    from headnb.tasks.loading import Task
    from headnb.tasks.samples import Id
    from headnb.tuning.answers import AnswerForm, Reader


@check_arguments
@with_progress_bar(counted("evaluating"))
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
    """Measure the loss and the exact match of every sample of a task.

    Exact match: greedy decoding continues the prompt up to an end-of-sequence token or until the answer is complete.
    The sample matches if the answer extracted from this text equals the answer extracted from its completion.

    Args:
        model: as for `score_heads`; it is not changed.
        tokenizer: the model's tokenizer; None if the samples are already encoded, which gives losses only.
        task: a `Task`, or anything that `load_task` accepts.
        answer: the answer form: a name in `answers.ANSWER_FORMS`, a function from a completion to its answer, or "none"
            for losses only. "auto": the form that the registry names for the task if it finds an answer in any
            completion, else "number" if all completions are numbers, else "text". Code is compared as text. If text
            cannot be compared (mbpp), there is no exact match.
        max_new_tokens: maximum number of generated tokens.
        batch_size: number of prompts that are continued together.
        batch_tokens: tokens of a batch for the losses, padding included.
        max_length: truncate longer samples to this many tokens for the losses.
        encoding: as for `score_heads`.
        level: confidence level of the intervals.
        seed: seed of the batch order.
        on_progress: called with the number of finished samples and their total; an exception in it stops the call.
            None: a progress bar in notebooks and terminals.

    Returns:
        Dataset with `loss` in nats and `answer_tokens` (sample); `exact_match` (sample): 1, 0, or NaN if there is no
        answer to compare; the answers `expected` and `prediction` and the whole text `generated` (sample); `ended`
        (sample): false if the generated text was truncated; `mean_loss` with its Student's t interval `loss_low`,
        `loss_high`; `accuracy` with its Wilson interval `accuracy_low`, `accuracy_high`. `.attrs["summary"]` states the
        result in one line.

    Raises:
        HeadnbError: the input is invalid, or a loss is not finite.
    """
    _check_counts(max_new_tokens=max_new_tokens, batch_size=batch_size)
    task, encoded = checked_task(model, tokenizer, task, encoding=encoding, max_length=max_length)
    total = len(encoded.samples)
    questions = _questions(task, tokenizer, encoded, encoding)
    form = find_answer_form(answer, task.name, [question.completion for question in questions]) if questions else None

    def report(done: int) -> None:
        if on_progress is not None:
            on_progress(done, total)

    with model_lock(model), frozen(model):
        losses = _losses(model, encoded, batch_tokens, seed, lambda done: report(0 if form else done))
        if form is None or tokenizer is None:
            answers = _empty_answers(total)
        else:
            answers = _compare_answers(model, tokenizer, questions, form, max_new_tokens, batch_size, report)
    report(total)

    attrs = _attributes(model, task, encoded)
    attrs |= {"answer": f"{form.name}: {form.meaning}" if form else f"{NO_ANSWER}: {_no_answers(answer, tokenizer)}"}
    attrs |= {"level": level, "encoding": encoding, "max_new_tokens": max_new_tokens}
    return _assemble(encoded, losses, answers, attrs)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise HeadnbError(f"{name} must be at least 1, not {count}")


def _no_answers(answer: str | Reader, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Why no answers are compared."""
    if answer == NO_ANSWER:
        return "answers were not asked for"
    if tokenizer is None:
        return "answers need the model's tokenizer"
    return "this task has no answer that can be compared as text"


def _attributes(model: PreTrainedModel, task: Task, encoded: EncodedTask) -> dict[str, Any]:
    """Attributes of the result that describe the model and the samples."""
    return {
        "model": model_name(model),
        **weights_source(model),
        "task": task.name,
        "units": "nats",
        "samples": len(encoded.samples),
        "left_out": len(encoded.left_out),
        "truncated": encoded.truncated,
        **encoded.notices,
    }


def _assemble(
    encoded: EncodedTask, losses: np.ndarray, answers: dict[str, np.ndarray], attrs: dict[str, Any]
) -> xr.Dataset:
    """The result of `evaluate`: the columns of the samples, their means, and the summary."""
    result = xr.Dataset(
        {
            "loss": ("sample", losses),
            "answer_tokens": ("sample", encoded.answer_tokens.astype(np.int32)),
            **{name: ("sample", values) for name, values in answers.items()},
            **_means(losses, answers["exact_match"], attrs["level"]),
        },
        coords={"sample": list(encoded.ids)},
        attrs=attrs,
    )
    result.attrs["summary"] = summary(result)
    return result


def summary(evaluation: xr.Dataset) -> str:
    """One-line summary: means with intervals, and how many answers were compared and truncated."""
    attrs = evaluation.attrs
    loss, low, high = (float(evaluation[name]) for name in ("mean_loss", "loss_low", "loss_high"))
    compared = evaluation["exact_match"].notnull()
    known = int(compared.sum())
    interval = "" if np.isnan(low) else f" ({attrs['level']:.0%} interval {low:.3g} to {high:.3g})"
    parts = [f"loss {loss:.3g} nats{interval}"]
    if known:
        accuracy, low, high = (100 * float(evaluation[name]) for name in ("accuracy", "accuracy_low", "accuracy_high"))
        parts.append(f"exact match {accuracy:.3g} % ({low:.3g} to {high:.3g}), {known} answers compared")
        if truncated := int((~evaluation["ended"] & compared).sum()):
            parts.append(f"{truncated} truncated at {attrs['max_new_tokens']} tokens")
    else:
        name, _, meaning = attrs["answer"].partition(": ")
        none = meaning if name == NO_ANSWER else f"no sample has a prompt and an answer of the form {name!r}"
        parts.append(f"no exact match: {none}")
    return f"{attrs['model']} on {attrs['samples']} samples of {attrs['task']}: {'; '.join(parts)}"


@dataclass(frozen=True)
class _Question:
    """The prompt of a sample and its reference completion."""

    prompt: np.ndarray  # (T,), token ids
    completion: str


def _questions(
    task: Task, tokenizer: PreTrainedTokenizerBase | None, encoded: EncodedTask, encoding: EncodingName
) -> list[_Question]:
    """One question per encoded sample, not truncated to `max_length`. An empty list without a tokenizer."""
    if tokenizer is None:
        return []
    whole = encode_task(task, tokenizer, encoding=encoding) if encoded.truncated else encoded
    samples: dict[Id, EncodedSample] = dict(zip(whole.ids, whole.samples, strict=True))
    questions = []
    for key in encoded.ids:
        answer = samples[key].labels != IGNORED
        start = int(answer.argmax())
        length = int(np.append(~answer[start:], True).argmax())  # up to the next turn of a conversation
        completion = tokenizer.decode(samples[key].labels[start : start + length], skip_special_tokens=True)
        questions.append(_Question(samples[key].prompt, str(completion)))
    return questions


def _losses(
    model: PreTrainedModel, encoded: EncodedTask, batch_tokens: int, seed: int, tick: Callable[[int], None]
) -> np.ndarray:
    """Loss of each sample (n,), float64, from forward passes only."""
    loss_computer, device = find_loss_computer(model), input_device(model)
    plan = plan_batches(encoded.lengths, batch_tokens=max_batch_tokens(model, batch_tokens), seed=seed)
    losses = np.full(len(encoded.samples), np.nan)
    for batch_slots in plan.batches():
        tick(int(batch_slots[0]))
        positions = plan.order[batch_slots]
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
    max_new_tokens: int,
    batch_size: int,
    report: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """Generated and expected answers of each sample, (n,) each. Samples without a prompt are skipped."""
    with_prompt = [index for index, question in enumerate(questions) if len(question.prompt)]
    prompts = [questions[index].prompt for index in with_prompt]
    continuations = continue_greedily(
        model, tokenizer, prompts, max_new_tokens, batch_size=batch_size, is_complete=form.is_complete, on_token=report
    )
    texts, ended = [""] * len(questions), np.zeros(len(questions), bool)
    for index, continuation in zip(with_prompt, continuations, strict=True):
        texts[index], ended[index] = continuation_text(tokenizer, continuation), continuation.ended
    expected = np.array([form.answer(question.completion) for question in questions], str)
    predicted = np.array([form.answer(generated) for generated in texts], str)
    known = (expected != "") & np.isin(np.arange(len(questions)), with_prompt)
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
    accuracy, low, high = np.nan, np.nan, np.nan
    if len(known):
        accuracy = float(known.mean())
        low, high = scipy.stats.binomtest(int(known.sum()), len(known)).proportion_ci(level, method="wilson")
    return {
        "mean_loss": float(loss.mean[0]),
        "loss_low": float(loss.low[0]),
        "loss_high": float(loss.high[0]),
        "accuracy": accuracy,
        "accuracy_low": float(low),
        "accuracy_high": float(high),
    }

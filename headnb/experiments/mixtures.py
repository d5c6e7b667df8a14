"""Training mixtures in a run folder: their samples, and the files that the two notebooks 07 write and read.

mixture/<target>/seed<k>/<way>.nc       losses and answers after training on the mixture, then on the target
mixture/<target>/seed<k>/result.json    training settings and sample counts; written last

A "way" is a mixing method of `headnb.mixture`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headnb.analysis.mixture_effect import BASE, FITTED, NAMES, PLAIN, RANDOM, mixture_effect
from headnb.analysis.mixtures import WAYS, Mixture, mixture
from headnb.errors import HeadnbError, unknown_name
from headnb.experiments.finetunings import training_seed
from headnb.experiments.paths import complete_seeds
from headnb.storage.files import load_dataset, read_json, write_dataset, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import xarray as xr
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.analysis.mixture_effect import MixtureEffect
    from headnb.experiments.folder import Run

_COLUMN = {
    FITTED: "weight",
    "contributions": "contribution",
    "single": "alone",
}  # columns of the composition's table of weights
TRAINING = "07_mixture_training"


def mixtures_for(
    run: Run, target: str, seed: int, size: int, ways: Sequence[str], form: str = "dAP"
) -> dict[str, Mixture]:
    """Mixtures to train on before a target, from training samples that are never scored.

    "random" samples uniformly from all basic tasks together, so a larger task has more samples in the mixture; a
    procedural task counts as `size` samples.

    Args:
        run: run folder with the finding of notebook 04, whose weights are used.
        target: the complex task.
        seed: seed of the sampling.
        size: number of samples of each mixture.
        ways: mixing methods, as for `headnb.mixture`.
        form: form of the fit, a key of `findings.FORMS`.

    Returns:
        Mixing method -> mixture. Methods without a positive weight are omitted.

    Raises:
        HeadnbError: an unknown mixing method, a target or form that notebook 04 did not fit, or findings of another
            revision.
    """
    if unknown := [way for way in ways if way not in WAYS]:
        raise unknown_name("mixing method", unknown[0], WAYS)
    fits = run.findings.numbers("composition", current=True)
    if target not in fits:
        raise unknown_name("target of notebook 04_composition", target, fits)
    if form not in fits[target]:
        raise unknown_name("form of the fit", form, fits[target])
    table = {row["basic"]: row for row in fits[target][form]["weights"]}
    limited = {basic: run.samples.training(basic, seed, size) for basic in table}
    whole = {basic: run.samples.training(basic, seed, size, whole=True) for basic in table} if RANDOM in ways else {}
    mixtures = {}
    for way in ways:
        shares = {basic: float(row[_COLUMN.get(way, "weight")] or 0) for basic, row in table.items()}
        if way == "single":
            best = max(shares, key=lambda basic: shares[basic])
            shares = {basic: float(basic == best) for basic in shares}
        by = way if way in {"uniform", RANDOM} else FITTED
        if by == FITTED and max(shares.values()) <= 0:
            continue
        mixtures[way] = mixture(shares, size, whole if way == RANDOM else limited, seed, by=by, repeat=True)
    return mixtures


def training_of(run: Run, target: str, seed: int) -> dict[str, Any]:
    """Training settings of notebook 02 for this target and seed: steps, batch_size, learning_rate, full, seed."""
    result = run.result(target, seed)
    if result["kind_of_tuning"] not in {"full", "lora"}:
        raise HeadnbError(
            f"{target} was trained with {result['kind_of_tuning']!r}; mixtures need full fine-tuning or LoRA"
        )
    known = ("steps", "batch_size", "learning_rate")
    own = {"full": result["kind_of_tuning"] == "full", "seed": training_seed(target, seed)}
    return {**{name: result[name] for name in known}, **own}


def evaluate_target(
    run: Run,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    target: str,
    answers: int = 0,
    max_new_tokens: int = 64,
) -> xr.Dataset:
    """Losses on the target's scored samples, and `exact_match` for `answers` of them (NaN for the rest)."""
    from headnb.tuning.evaluation import evaluate  # noqa: PLC0415  torch, which reading results does not need

    samples = run.samples.scored(target)
    length = run.settings.max_length
    result = evaluate(model, tokenizer, samples, answer="none", max_length=length)[["loss"]]
    if answers:
        subset = run.samples.scored(target, answers)
        answered = evaluate(model, tokenizer, subset, max_new_tokens=max_new_tokens, max_length=length)
        result["exact_match"] = answered["exact_match"].reindex(sample=result["sample"])
    return result


def save_evaluation(run: Run, target: str, seed: int, way: str, evaluation: xr.Dataset) -> Path:
    """Save the result of `evaluate_target` for one mixing method and return the path."""
    path = run.paths.mixture(target, seed) / f"{way}.nc"
    write_dataset(path, evaluation)
    return path


def finish_mixtures(
    run: Run, target: str, seed: int, mixtures: dict[str, Mixture], how: dict[str, Any]
) -> dict[str, Any]:
    """Write result.json, which marks this seed as complete; return its content. `how` has the training settings."""
    counts = {way: mix.counts for way, mix in mixtures.items()}
    notes = {way: list(mix.notes) for way, mix in mixtures.items() if mix.notes}
    result = {"target": target, "how": how, "counts": counts, "notes": notes}
    write_json(run.paths.mixture(target, seed) / "result.json", result)
    return result


def mixture_results(run: Run, target: str) -> dict[int, dict[str, Any]]:
    """Seed -> content of result.json, for the complete trainings; empty if there are none."""
    seeds = complete_seeds(run.paths.mixture(target, 0).parent)
    return {seed: read_json(run.paths.mixture(target, seed) / "result.json", TRAINING) for seed in seeds}


def mixture_effect_of(run: Run, target: str) -> MixtureEffect:
    """Effect on a target of training on a mixture first, over the complete seeds.

    Raises:
        HeadnbError: no seed is complete.
    """
    results = mixture_results(run, target)
    if not results:
        raise HeadnbError(f"{run.folder} has no training on mixtures for {target}; run notebook {TRAINING} first")
    ways = set.intersection(*(set(result["counts"]) for result in results.values()))
    evaluations = {
        BASE: [_plain_training_results(run.before(target), run.answers(target))] * len(results),
        PLAIN: [
            _plain_training_results(run.after(target, seed, target), run.answers(target, seed)) for seed in results
        ],
    }
    for way in (way for way in WAYS if way in ways):
        evaluations[way] = [load_dataset(run.paths.mixture(target, seed) / f"{way}.nc", TRAINING) for seed in results]
    return mixture_effect(target, evaluations)


def describe_losses(run: Run, target: str, seed: int) -> str:
    """Mean losses of one seed's trainings, and notes on the mixtures."""
    result = read_json(run.paths.mixture(target, seed) / "result.json", TRAINING)
    mixed = {way: load_dataset(run.paths.mixture(target, seed) / f"{way}.nc", TRAINING) for way in result["counts"]}
    trained = {BASE: run.before(target), PLAIN: run.after(target, seed, target), **mixed}
    texts = [f"{NAMES[way]} **{float(scores['loss'].mean()):.3f}**" for way, scores in trained.items()]
    notes = [f"{NAMES[way]}: {'; '.join(lines)}." for way, lines in result["notes"].items()]
    return "\n\n".join([f"Mean held-out loss on {target}, nats: {', '.join(texts)}.", *notes])


def describe_fit(run: Run, target: str) -> str:
    """Form of the fit that gives the mixture's weights, and its evidence for composition."""
    form = next(iter(mixture_results(run, target).values()))["how"]["form"]
    evidence = run.findings.numbers("composition")[target][form]["evidence"]
    return f"The mixture uses the weights of the fit to {form}. {evidence['verdict']}"


def _plain_training_results(scores: xr.Dataset, answers: xr.Dataset | None) -> xr.Dataset:
    result = scores[["loss"]].load().reset_coords(drop=True)
    if answers is not None:
        result["exact_match"] = answers["exact_match"].reindex(sample=result["sample"])
    return result

"""Mixtures in a run folder: which one each seed trains on first, and what the notebooks on mixtures read and write.

mixture/<target>/seed<k>/<way>.nc       loss and answers after the mixture and then the target
mixture/<target>/seed<k>/result.json    how it was trained, and the counts; written last
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

_COLUMN = {FITTED: "weight", "contributions": "contribution", "single": "alone"}  # of the composition's table
TRAINING = "07_mixture_training"


def mixtures_for(
    run: Run, target: str, seed: int, size: int, ways: Sequence[str], form: str = "dAP"
) -> dict[str, Mixture]:
    """The mixtures that a target's trainings begin with, of training samples that are never scored.

    "random" draws from all of them alike, so larger tasks have a larger part; of a procedural task there are `size`.

    Args:
        run: with the finding of notebook 04, whose weights are used.
        target: the complex task.
        seed: of the samples drawn.
        size: samples of each mixture.
        ways: of `headnb.mixture`.
        form: of the fit, one of `run_findings.FORMS`.

    Returns:
        Way -> mixture; without the ways that have no weight above zero.

    Raises:
        HeadnbError: an unknown way, a target or form that notebook 04 did not fit, or findings of another
            revision.
    """
    if unknown := [way for way in ways if way not in WAYS]:
        raise unknown_name("way to mix", unknown[0], WAYS)
    fits = run.findings.numbers("composition", current=True)
    if target not in fits:
        raise unknown_name("target of notebook 04_composition", target, fits)
    if form not in fits[target]:
        raise unknown_name("form of the fit", form, fits[target])
    table = {row["basic"]: row for row in fits[target][form]["weights"]}
    few = {basic: run.samples.training(basic, seed, size) for basic in table}
    every = {basic: run.samples.training(basic, seed, size, whole=True) for basic in table} if RANDOM in ways else {}
    found = {}
    for way in ways:
        shares = {basic: float(row[_COLUMN.get(way, "weight")] or 0) for basic, row in table.items()}
        if way == "single":
            best = max(shares, key=lambda basic: shares[basic])
            shares = {basic: float(basic == best) for basic in shares}
        by = way if way in {"uniform", RANDOM} else FITTED
        if by == FITTED and max(shares.values()) <= 0:
            continue
        found[way] = mixture(shares, size, every if way == RANDOM else few, seed, by=by, repeat=True)
    return found


def training_of(run: Run, target: str, seed: int) -> dict[str, Any]:
    """How notebook 02 trained the target with this seed: `steps`, `batch_size`, `learning_rate`, `full`, `seed`."""
    result = run.result(target, seed)
    if result["kind_of_tuning"] not in {"full", "lora"}:
        raise HeadnbError(
            f"{target} was trained as {result['kind_of_tuning']!r}; this goes on with full tuning or LoRA"
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
    """Losses of the run's samples of the target, and `exact_match` of `answers` of them, NaN for the others."""
    from headnb.tuning.evaluation import evaluate  # noqa: PLC0415  torch, which reading results does not need

    whole = run.samples.scored(target)
    longest = run.settings.max_length
    found = evaluate(model, tokenizer, whole, answer="none", max_length=longest)[["loss"]]
    if answers:
        some = run.samples.scored(target, answers)
        asked = evaluate(model, tokenizer, some, max_new_tokens=max_new_tokens, max_length=longest)
        found["exact_match"] = asked["exact_match"].reindex(sample=found["sample"])
    return found


def save_evaluation(run: Run, target: str, seed: int, way: str, found: xr.Dataset) -> Path:
    """Keep what `evaluate_target` gave after training by a way."""
    path = run.paths.mixture(target, seed) / f"{way}.nc"
    write_dataset(path, found)
    return path


def finish_mixtures(
    run: Run, target: str, seed: int, mixtures: dict[str, Mixture], how: dict[str, Any]
) -> dict[str, Any]:
    """Write result.json, which says that this seed is complete; returns what it holds."""
    counts = {way: mix.counts for way, mix in mixtures.items()}
    notes = {way: list(mix.notes) for way, mix in mixtures.items() if mix.notes}
    result = {"target": target, "how": how, "counts": counts, "notes": notes}
    write_json(run.paths.mixture(target, seed) / "result.json", result)
    return result


def mixture_results(run: Run, target: str) -> dict[int, dict[str, Any]]:
    """Seed -> result.json of the trainings that are complete; empty if none is."""
    seeds = complete_seeds(run.paths.mixture(target, 0).parent)
    return {seed: read_json(run.paths.mixture(target, seed) / "result.json", TRAINING) for seed in seeds}


def mixture_effect_of(run: Run, target: str) -> MixtureEffect:
    """What training on mixtures first did to a target, over the seeds that are complete.

    Raises:
        HeadnbError: there are none.
    """
    results = mixture_results(run, target)
    if not results:
        raise HeadnbError(f"{run.folder} has no training on mixtures for {target}; notebook {TRAINING} makes one")
    ways = set.intersection(*(set(result["counts"]) for result in results.values()))
    found = {
        BASE: [_plain_training_results(run.before(target), run.answers(target))] * len(results),
        PLAIN: [
            _plain_training_results(run.after(target, seed, target), run.answers(target, seed)) for seed in results
        ],
    }
    for way in (way for way in WAYS if way in ways):
        found[way] = [load_dataset(run.paths.mixture(target, seed) / f"{way}.nc", TRAINING) for seed in results]
    return mixture_effect(target, found)


def describe_losses(run: Run, target: str, seed: int) -> str:
    """The mean losses of one seed's trainings, and what could not be mixed."""
    result = read_json(run.paths.mixture(target, seed) / "result.json", TRAINING)
    found = {way: load_dataset(run.paths.mixture(target, seed) / f"{way}.nc", TRAINING) for way in result["counts"]}
    losses = {BASE: run.before(target), PLAIN: run.after(target, seed, target), **found}
    texts = [f"{NAMES[way]} **{float(one['loss'].mean()):.3f}**" for way, one in losses.items()]
    notes = [f"{NAMES[way]}: {'; '.join(said)}." for way, said in result["notes"].items()]
    return "\n\n".join([f"Mean held-out loss on {target}, nats: {', '.join(texts)}.", *notes])


def describe_fit(run: Run, target: str) -> str:
    """Which fit's weights were mixed, and what evidence for composition there is behind it."""
    how = next(iter(mixture_results(run, target).values()))["how"]
    evidence = run.findings.numbers("composition")[target][how["form"]]["evidence"]
    return f"The mixture has the weights of the fit to {how['form']}. {evidence['verdict']}"


def _plain_training_results(scores: xr.Dataset, answers: xr.Dataset | None) -> xr.Dataset:
    found = scores[["loss"]].load().reset_coords(drop=True)
    if answers is not None:
        found["exact_match"] = answers["exact_match"].reindex(sample=found["sample"])
    return found

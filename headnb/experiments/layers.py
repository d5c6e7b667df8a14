"""Layer representations in a run folder, and their change by fine-tuning: notebook 11 and its report section.

The run folder has no fine-tuned weights, so notebooks 01 and 02 save the Gram matrices that notebook 11 needs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headnb.analysis.layer_profile import EVEN_RISE_WIDTH, LayerRun, layer_profile
from headnb.display.report import FOUND, NOT_FOUND, UNDECIDED, Finding, Number, Section, Table
from headnb.experiments.verdicts import TRANSITION, Effect, answer_of
from headnb.storage.files import load_dataset, write_dataset

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.analysis.layer_profile import LayerProfile
    from headnb.experiments.folder import Run


def represent(
    run: Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, task: str, seed: int | None = None
) -> Path | None:
    """Save Gram matrices of the scored samples in each layer; None if the model's layers cannot be identified."""
    from headnb.analysis.representations import UnknownLayersError, layer_grams  # noqa: PLC0415  torch

    try:
        grams = layer_grams(model, tokenizer, run.samples.scored(task), max_length=run.settings.max_length)
    except UnknownLayersError:
        return None
    path = run.paths.layers(task, seed)
    write_dataset(path, grams)
    return path


def representations(run: Run, task: str, seed: int | None = None) -> xr.Dataset:
    """Gram matrices saved by `represent`.

    Raises:
        HeadnbError: they are missing; the message names the notebook to run.
    """
    notebook_name = "01_patterns" if seed is None else f"02_finetune for {task}, seed {seed}"
    return load_dataset(run.paths.layers(task, seed), notebook_name)


def layers_of(run: Run) -> LayerProfile:
    """Change of each layer by fine-tuning, for each fine-tuned task on its own samples, over seeds.

    Raises:
        HeadnbError: no task is fine-tuned yet, or representations are missing.
    """
    changes = {
        task: [
            LayerRun(
                (representations(run, task), representations(run, task, seed)),
                pair,
                run.study(task, seed)["movement"].isel(step=-1),
            )
            for seed, pair in zip(seeds, run.pairs(task), strict=True)
        ]
        for task, seeds in run.trained.items()
    }
    return layer_profile(changes)


def layer_sections(run: Run) -> list[Section]:
    """Report section on layers, if notebook 11 has run."""
    if not run.findings.has_arrays("layers"):
        return []
    profile = layers_of(run)
    first, last = profile.stages
    numbers = (
        Number("shared layers", first),
        Number("transition layers", last - first),
        Number("refinement layers", profile.similarity.sizes["layer"] - last),
        Number("lowest CKA, mean over tasks", float(profile.similarity["value"].min("layer").mean())),
    )
    width, low, high = profile.width
    answer = answer_of(Effect(EVEN_RISE_WIDTH - high, EVEN_RISE_WIDTH - low), TRANSITION)
    headline = {
        FOUND: "Fine-tuning changes the representations most in a part of the layers",
        NOT_FOUND: "Fine-tuning does not concentrate the change of the representations in a part of the layers",
        UNDECIDED: "It is undecided whether the change of the representations is concentrated in a part of the layers",
    }[answer.verdict]
    spans = f": the transition spans {width:.0%} of them, and {EVEN_RISE_WIDTH:.0%} in a uniform rise"
    return [
        Section(
            "Layers",
            "Which layers does fine-tuning change?",
            Finding(
                answer.verdict,
                f"{headline}{spans if math.isfinite(width) else ''}.",
                answer.reason,
                numbers,
            ),
            picture=profile.plot(),
            sentences=(profile.verdict,),
            charts=(profile.plot_across(),),
            tables=(Table.of(profile.table, "CKA of the most changed layer, and number of layers of each kind"),),
        )
    ]

"""Representations in a run folder, and what fine-tuning changed in each layer: notebook 11 and its part of the report.

Fine-tuned weights are not kept, so notebooks 01 and 02 keep what is needed of the representations while they have them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb.analysis.layer_profile import LayerRun, layer_profile
from headnb.display.report import Finding, Number, Section, Table
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
    """Keep what a model makes of the scored samples in each layer; None of a model whose layers cannot be told."""
    from headnb.analysis.representations import UnknownLayersError, layer_grams  # noqa: PLC0415  torch

    try:
        found = layer_grams(model, tokenizer, run.samples.scored(task), max_length=run.settings.max_length)
    except UnknownLayersError:
        return None
    path = run.paths.layers(task, seed)
    write_dataset(path, found)
    return path


def representations(run: Run, task: str, seed: int | None = None) -> xr.Dataset:
    """What `represent` kept.

    Raises:
        HeadnbError: nothing is kept; the message says which notebook does.
    """
    notebook_name = "01_patterns" if seed is None else f"02_finetune for {task}, seed {seed}"
    return load_dataset(run.paths.layers(task, seed), notebook_name)


def layers_of(run: Run) -> LayerProfile:
    """What fine-tuning changed in each layer, of every fine-tuned task on its own samples, over seeds.

    Raises:
        HeadnbError: nothing is fine-tuned yet, or representations were not kept.
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
    """The report's part on layers, where notebook 11 has run."""
    if not run.findings.has_arrays("layers"):
        return []
    found = layers_of(run)
    first, last = found.stages
    numbers = (
        Number("shared layers", first),
        Number("layers of transition", last - first),
        Number("layers of refinement", found.similarity.sizes["layer"] - last),
        Number("lowest CKA, mean over tasks", float(found.similarity["value"].min("layer").mean())),
    )
    return [
        Section(
            "Layers",
            "Which layers does fine-tuning leave as they are, and which does it change?",
            Finding(found.supported, found.verdict, numbers),
            charts=(found.plot(), found.plot_across()),
            tables=(Table.of(found.table, "CKA of the most changed layer, and how many layers are of which kind."),),
        )
    ]

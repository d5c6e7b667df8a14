"""Commands that change heads or compare changed ones: compare, ablate and finetune."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer evaluates the annotations
from typing import Annotated, Any

import typer

from headnb.cli.output import echo, interrupted
from headnb.cli.parameters import Model, Save, completes, sampled_task, takes
from headnb.notebook import shared_options as shared


@takes(*shared.COMPARING)
def compare(
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="File or URL of scores (.zarr, .nc, .parquet).")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Scores of the same samples, or of another task.")],
    save: Save = None,
    **given: Any,
) -> None:
    """Compare two sets of head scores, AFTER minus BEFORE.

    BEFORE comes first, as in headnb.compare; the magic %headdiff takes AFTER first.

    Scores of one task are paired by sample: differences with intervals and q-values (headnb.compare). Scores of two
    tasks cannot be paired: the difference of the heads' ranks is shown (headnb.rank_difference), and no head is tested.
    """
    from headnb.display.grid import check_writable  # noqa: PLC0415
    from headnb.notebook.differences import change_between  # noqa: PLC0415
    from headnb.storage.reading import open_scores_of_one_method as open_one  # noqa: PLC0415

    if save is not None:
        check_writable(save)
    settings = shared.chosen(shared.COMPARING, given)
    change, grid = change_between(open_one(before), open_one(after), (before, after), **settings)
    echo(grid)
    echo(change.heads.top(10).to_string(float_format="{:.3g}".format))
    if save is not None:
        echo(f"wrote {grid.save(save)}")


@takes(*shared.ABLATING, *shared.LOADING)
def ablate(
    model: Model,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="Name (see `headnb tasks`), file or hub data set.",
            autocompletion=completes("task"),
        ),
    ],
    heads: Annotated[str, typer.Option(metavar="L3H5,L7H1", help="Heads to ablate or scale, separated by commas.")],
    **given: Any,
) -> None:
    """Measure the loss of MODEL on TASK with some heads ablated or scaled.

    The answer to the first sample is generated before and after.
    """
    from headnb.display.live import LiveGrid  # noqa: PLC0415
    from headnb.explorer.ablation_card import AblationCard  # noqa: PLC0415
    from headnb.head_names import parse_heads  # noqa: PLC0415
    from headnb.models.loading import load_model  # noqa: PLC0415
    from headnb.notebook.live_ablation import ablate_live, texts_before_and_after  # noqa: PLC0415

    parse_heads(heads)
    samples = sampled_task(task, given)
    loaded, tokenizer = load_model(model, **shared.chosen(shared.LOADING, given))
    live = LiveGrid(f"{model} · {samples.name} · {heads}")
    settings = shared.chosen(shared.ABLATION, given)
    result, texts = None, None
    try:
        result = ablate_live(live, loaded, tokenizer, samples, heads, **settings)
        texts = texts_before_and_after(live, loaded, tokenizer, samples, heads, given["tokens"], **settings)
    finally:  # an interrupt while the texts are generated does not lose the losses
        live.discard()
        if result is not None:
            echo(AblationCard(result, texts))


@takes(
    shared.TRACKED_SAMPLES,
    shared.TRACK,
    *shared.TUNING,
    *shared.TUNING_MODEL,
)
def finetune(
    model: Model,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="Training task: name (its train split), file or hub data set.",
            autocompletion=completes("task"),
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the study, the adapter and checkpoints.")],
    full: Annotated[
        bool,
        typer.Option("--full", help="Tune all weights; the last checkpoint has the tuned model. Default: LoRA."),
    ] = False,
    **given: Any,
) -> None:
    """Fine-tune MODEL on TASK and track its heads.

    The tracked scores (headnb.open_study), the adapter and checkpoints are written to the folder --out.
    """
    from headnb.models.checks import model_name  # noqa: PLC0415
    from headnb.models.loading import load_model  # noqa: PLC0415
    from headnb.notebook.arguments import load_sampled_task  # noqa: PLC0415
    from headnb.notebook.live_scoring import distinct_tasks  # noqa: PLC0415
    from headnb.notebook.live_tuning import LiveStudy, how_to_continue, training_note  # noqa: PLC0415
    from headnb.tuning.finetuning import finetune as train  # noqa: PLC0415
    from headnb.tuning.training import TuningInterrupted  # noqa: PLC0415

    sampling = (given["samples"], shared.MAX_SAMPLES, "test", given["seed"])
    words = given["track"] or [task]
    track = distinct_tasks([load_sampled_task(word, *sampling) for word in words], words)
    loaded, tokenizer = load_model(model, **shared.chosen(shared.TUNING_MODEL, given))
    try:
        with LiveStudy(f"{model_name(loaded)} fine-tuned on {task}") as live:
            settings = {"track": track, "samples": given["samples"], "inplace": full, "output_dir": out}
            settings |= shared.chosen(shared.TUNING, given)
            result = train(loaded, tokenizer, task, **settings, on_progress=live.update_tuning)
            live.finish(result.study, note=training_note(result))
    except TuningInterrupted as stopped:
        done = f"{stopped.step} of {given['steps']} steps are done"
        interrupted(done + how_to_continue(out, resume=given["resume"]))
    echo(f"{result}\nwrote {out}")

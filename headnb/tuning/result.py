"""Result of a fine-tuning: the study, the scores, the adapter, and a context with the tuned model."""

from __future__ import annotations

import contextlib
import shutil
import warnings
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from headnb.call_checks import check_arguments
from headnb.display.grid import HeadGrid
from headnb.errors import HeadnbError, optional_import
from headnb.hub import user_path
from headnb.models.checks import model_name
from headnb.models.locks import model_lock
from headnb.models.restore import restore_model
from headnb.stats.scoring_revision import warn_of_revision
from headnb.storage.locks import local_path
from headnb.tuning.run_folder import SETTINGS
from headnb.tuning.study import FOLDER, STUDY, Study, read_study

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import xarray as xr
    from transformers import PreTrainedModel

    from headnb.stats.labelled import Pattern


@dataclass(frozen=True, repr=False)
class FineTuned:
    """Result of `finetune`.

    Attributes:
        study: Dataset of the tracked quantities. Step 0 is before fine-tuning. `level` (step, task, layer, head): mean
            level over the task's samples. `change`, `change_low`, `change_high`, `change_q_value`: its difference from
            the first step, with its interval and q-value, as `headnb.compare` computes them from the paired samples.
            `level_evidence`, `change_evidence` (step, task, evidence): reliability of both, and what would raise it.
            `eval_loss` (step, task): mean loss of these samples. `exact_match` (step, task), with `answers`: fraction
            of the compared answers that match. `movement` (step, layer): relative L2 distance of the parameters from
            step 0. `samples_seen`, `tokens_seen` (step): training samples and tokens so far. `train_loss` (update).
            `online_level` (update, layer, head): mean level over the training batch.
        scores: task -> Dataset of scores (step, sample, layer, head), with the same samples at each step.
        online_scores: scores of the training batches (sample, layer, head), with the update as `step`; None without
            online scoring.
        adapter: folder of the adapter; None after full tuning.
    """

    study: xr.Dataset
    scores: dict[str, xr.Dataset]
    online_scores: xr.Dataset | None
    adapter: Path | None
    _study: Study = field(compare=False)
    _temporary_folder: Any = field(default=None, compare=False)  # this reference keeps the temporary folder
    _model: Any = field(default=None, compare=False)  # weak reference to the tuned model

    @property
    def patterns(self) -> Pattern:
        """The patterns (step, task, layer, head): `study["level"]`."""
        if "level" not in self.study:
            raise HeadnbError("no task was tracked; use track={'name': task}")
        return cast("Pattern", self.study["level"])

    @property
    def trained_parameters(self) -> int:
        """Number of trained parameters. For selected heads: their slices, and the other LoRA factor of adapters."""
        return int(self.study.attrs["trained_parameters"])

    def __repr__(self) -> str:
        attrs, losses = self.study.attrs, [loss for _, loss in sorted(self._study.train_loss.items())]
        on = f" on {attrs['trained_on']}" if "trained_on" in attrs else ""  # not recorded in checkpoints
        trained = f"{attrs.get('model')}{on}, {attrs.get('kind_of_tuning')}"
        loss = f", loss {losses[0]:.3g} -> {losses[-1]:.3g}" if losses else ""
        where = f", adapter in {self.adapter}" if self.adapter else ""
        return f"FineTuned({trained}, {attrs.get('steps_done')} steps{loss}{where})"

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        """The grid of the study, if a task was tracked; as text, `repr`."""
        text = {"text/plain": repr(self)}
        return HeadGrid.of(self.study)._repr_mimebundle_(include, exclude) | text if "level" in self.study else text

    @contextlib.contextmanager
    def applied(self, model: PreTrainedModel) -> Iterator[PreTrainedModel]:
        """Context with the tuned model. On exit the adapter is removed from `model`.

        Args:
            model: the base model, or another copy of it. After full tuning it must be the tuned model itself, which the
                context yields without a change.

        Raises:
            HeadnbError: the adapter does not fit, or `model` is not the model that full tuning changed.
        """
        if self.adapter is None:
            if self._model is None or self._model() is not model:
                raise HeadnbError(
                    "there is no adapter to apply: full tuning changed a different model object; "
                    "load a checkpoint-N folder of its output_dir with load_model"
                )
            yield model
            return
        with optional_import("train"):
            from peft import PeftModel  # noqa: PLC0415

        with model_lock(model), restore_model(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tuned: Any = PeftModel.from_pretrained(model, str(self.adapter))
            except (RuntimeError, ValueError, KeyError) as error:
                raise HeadnbError(f"the adapter does not fit {model_name(model)}: {error!s:.200}") from error
            tuned.headnb_adapter = str(self.study.attrs.get("trained_on", self.adapter.name))
            yield tuned.eval()

    def save(self, folder: str | Path) -> Path:
        """Write study, scores and adapter to a folder for `headnb.open_study`, and replace a result saved there.

        The output_dir of this training already contains the result, and nothing is written. Returns the folder.

        Raises:
            HeadnbError: the folder is the output_dir of another training, or contains an adapter without a study.
        """
        folder, stored = user_path(folder), self._study.folder
        if stored is not None and stored.resolve() == (folder / FOLDER).resolve():
            return folder
        if found := [name for name in (FOLDER, SETTINGS) if (folder / name).exists()]:
            raise HeadnbError(f"{folder} is the output_dir of another training ({found[0]}); choose another folder")
        adapter, is_own = folder / "adapter", False
        if adapter.exists():
            is_own = self.adapter is not None and self.adapter.resolve() == adapter.resolve()
            if not is_own and not (folder / STUDY).exists():
                raise HeadnbError(f"{adapter} exists, and {folder} contains no study; choose another folder")
        self._study.copy_to(folder)
        if not is_own:
            shutil.rmtree(adapter, ignore_errors=True)  # of the result that was saved here before
            if self.adapter is not None:
                shutil.copytree(self.adapter, adapter)
        return folder


@check_arguments
def open_study(folder: str | Path) -> FineTuned:
    """Open a folder written by `FineTuned.save`, or the output_dir of a training run with `HeadScoreCallback`.

    Raises:
        HeadnbError: there is no study, or it is damaged.
    """
    folder = local_path(folder)
    study = read_study(folder / FOLDER if (folder / FOLDER).is_dir() else folder)
    warn_of_revision(folder, study.attrs)
    adapter = folder / "adapter"
    return tuned_result(study, adapter if adapter.is_dir() else None)


def tuned_result(
    study: Study, adapter: Path | None, temporary_folder: Any = None, model: PreTrainedModel | None = None
) -> FineTuned:
    """Build a `FineTuned`, which keeps `temporary_folder` alive and refers to the tuned `model` weakly."""
    reference = None if model is None else weakref.ref(model)
    return FineTuned(
        study.dataset(), study.scores(), study.online_scores(), adapter, study, temporary_folder, reference
    )

"""Names from other packages that the notebooks use and that do not import torch."""

from __future__ import annotations

from headnb.analysis.selection.study import SelectionStudy
from headnb.analysis.selective_tuning import SelectiveTuning
from headnb.display.charts import plots
from headnb.display.report import report as write_report
from headnb.storage.files import remove_folder
from headnb.suite.parameters import check_parameters

__all__ = ["SelectionStudy", "SelectiveTuning", "check_parameters", "plots", "remove_folder", "write_report"]

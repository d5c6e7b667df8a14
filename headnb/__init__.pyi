# Public names, for type checkers, editors and the lazy loader.
from .accessor import grid as grid
from .analysis.agreement import compare_methods as compare_methods
from .analysis.composition.fit import fit_combination as fit_combination
from .analysis.composition.power import composition_power as composition_power
from .analysis.deletion import deletion_curve as deletion_curve
from .analysis.head_choice import choose_heads as choose_heads
from .analysis.mixtures import mixture as mixture
from .analysis.selection.select import select_instructions as select_instructions
from .analysis.task_selectivity import selectivity as selectivity
from .analysis.task_specificity import specificity as specificity
from .analysis.trajectories import trajectory as trajectory
from .engine.hooks import head_outputs as head_outputs
from .engine.hooks import scale_heads as scale_heads
from .errors import HeadnbError as HeadnbError
from .explorer.explorer import explore as explore
from .explorer.selection import link as link
from .models.loading import load_model as load_model
from .scoring.ablation import ablate as ablate
from .scoring.attention import head_attention as head_attention
from .scoring.registry import methods as methods
from .scoring.roles import head_roles as head_roles
from .scoring.run import score_heads as score_heads
from .scoring.several_tasks import score_tasks as score_tasks
from .stats.patterns import compare as compare
from .stats.rank_differences import rank_difference as rank_difference
from .storage.reading import open_scores as open_scores
from .tasks.loading import Task as Task
from .tasks.loading import load_task as load_task
from .tuning.adapters import compare_adapter as compare_adapter
from .tuning.checkpoint_tracking import track_checkpoints as track_checkpoints
from .tuning.evaluation import evaluate as evaluate
from .tuning.finetuning import finetune as finetune
from .tuning.result import FineTuned as FineTuned
from .tuning.result import open_study as open_study
from .tuning.tracking import HeadScoreCallback as HeadScoreCallback

__version__: str

"""`%headroles MODEL [TASK]`: roles of the heads, such as induction and attention sink."""

# IPython's decorators have no types.
# mypy: disable-error-code="no-untyped-call, untyped-decorator, no-any-return"

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments

from headnb.display.grid import HeadGrid
from headnb.display.live import LiveGrid
from headnb.notebook import arguments
from headnb.notebook import shared_options as shared
from headnb.notebook.arguments import takes
from headnb.notebook.cell_output import display_once, loading, one_line_errors, store_variable

if TYPE_CHECKING:
    from argparse import Namespace

    import xarray as xr
    from IPython.core.interactiveshell import InteractiveShell

    from headnb.notebook.magics import HeadMagics


@magics_class
class RoleMagics(Magics):
    """Head roles in a notebook; shares models, settings and variables with `HeadMagics`."""

    def __init__(self, shell: InteractiveShell, heads: HeadMagics) -> None:
        super().__init__(shell)
        self.heads = heads

    @line_magic
    @magic_arguments()
    @arguments.MODEL
    @argument("task", metavar="TASK", nargs="?", help="Task for the copy score: name, file or variable with a task.")
    @takes(shared.COPY, *shared.SAMPLING, shared.BATCH_TOKENS, shared.MAX_LENGTH, *shared.LOADING, shared.INTO)
    def headroles(self, line: str) -> xr.Dataset:
        """Measure the roles of every head on repeated random tokens: induction, previous token, duplicate token, sink.

            roles = %headroles smollm2-135m
            roles = %headroles model task -n 32
            %headgrid scores --roles roles

        With a task there is also a copy score. Returns the roles (an xarray Dataset with score and threshold).
        """
        with one_line_errors():
            options = self.heads.options(RoleMagics.headroles, line)
            roles = self._roles(options)
            store_variable(options, roles)
            grid = HeadGrid.of(roles)
        return display_once(grid, roles)

    def _roles(self, options: Namespace) -> xr.Dataset:
        live = LiveGrid(" · ".join(filter(None, (options.model, options.task))))
        with loading(live, until="the roles were measured"):
            task = self.heads.task(options.task, options) if options.task else None
            model, tokenizer = self.heads.model(options, live)
            live.message("measuring head roles")
            from headnb.scoring.roles import head_roles  # noqa: PLC0415  loads torch

            roles = head_roles(model, tokenizer, task, **shared.chosen(shared.ROLES, vars(options), self.heads))
        live.discard()
        return roles

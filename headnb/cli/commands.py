"""Command class that refuses an option given twice."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from headnb.errors import HeadnbError


class Command(TyperCommand):
    """Command that refuses an option given twice; the parser would silently use its last value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer uses its bundled click or the installed one
        _, _, given = self.make_parser(ctx).parse_args(args=[*args])
        for option in given:
            if given.count(option) > 1 and not option.multiple and not ctx.resilient_parsing:  # as for completion
                raise HeadnbError(f"{option.opts[0]} is given twice")
        return super().parse_args(ctx, args)

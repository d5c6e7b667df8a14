"""Command class for which malformed options and options given twice are wrong usage."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from headnb.errors import HeadnbError


class Command(TyperCommand):
    """Command that refuses malformed options, and an option given twice: the parser would silently use the last value.

    Wrong usage has exit status 2.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # typer uses its bundled click or the installed one
        _, _, given = self.make_parser(ctx).parse_args(args=[*args])
        for option in given:
            if given.count(option) > 1 and not option.multiple and not ctx.resilient_parsing:  # as for completion
                ctx.fail(f"{option.opts[0]} is given twice")
        rest: list[str] = []
        try:
            rest = super().parse_args(ctx, args)
        except HeadnbError as error:
            ctx.fail(str(error))
        return rest

"""Commands from the browser to the explorer: `{"do": name, ...arguments}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from headnb.errors import HeadnbError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_CONTROLS = 1000  # that a browser may request


class Commands(Protocol):
    """Methods of the explorer that a browser can call."""

    def run(self) -> None: ...

    def stop(self) -> None: ...

    def attend(self, head: str | None = None, place: int = 0) -> None: ...

    def ablate(
        self,
        factor: float = 0.0,
        heads: Iterable[str] | None = None,
        tasks: Iterable[str] | None = None,
        *,
        controls: int = 0,
    ) -> None: ...


def run_command(explorer: Commands, content: dict[str, Any]) -> None:
    """Call the explorer's method for a command.

    Raises:
        HeadnbError: the command is unknown, or the explorer refuses it.
        KeyError, TypeError, ValueError: an argument is missing or has the wrong type.
    """
    commands: dict[str, Callable[[], None]] = {
        "run": explorer.run,
        "stop": explorer.stop,
        "attend": lambda: explorer.attend(str(content["head"]), int(content["place"])),
        "ablate": lambda: explorer.ablate(
            float(content["factor"]),
            map(str, content["heads"]),
            map(str, content["tasks"]),
            controls=int(content["controls"]),
        ),
    }
    if int(content.get("controls", 0)) > MOST_CONTROLS:
        raise HeadnbError(f"the explorer draws at most {MOST_CONTROLS} random controls; headnb.ablate allows more")
    name = str(content.get("do"))
    if name not in commands:
        raise unknown_name("command", name, commands)
    commands[name]()

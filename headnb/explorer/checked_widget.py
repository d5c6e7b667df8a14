"""Widget that accepts only some changes from the browser and shows every error as a message."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class CheckedWidget(anywidget.AnyWidget):
    """Widget whose browser side is not trusted: what it sends is checked, and an error never closes the connection.

    Attributes:
        error: the exception behind the last error message.
        browser_traits: names of the traits that a browser may change.
    """

    browser_traits: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **given: Any) -> None:
        self.error: BaseException | None = None
        super().__init__(**given)
        self.on_msg(self._on_message)

    def set_state(self, sync_data: object) -> None:
        """Apply changes of the browser; a refused change is shown as an error, and the old value is sent back."""
        self._apply(sync_data, super().set_state)

    def _on_message(self, _: object, content: object, __: object) -> None:
        """Apply the changes in a message `{"changes": {name: value}}`, or run any other message as a command.

        A front end delays a change until the kernel has answered the previous one, so a cell or a command that follows
        immediately would see the old value. Messages are not delayed, so each change is sent both ways, as a trait
        update and as a message.
        """
        content = content if isinstance(content, dict) else {}
        if "changes" in content:
            self._apply(content["changes"], self._set_traits)
        else:
            self._run_command(content)

    def _run_command(self, command: dict[str, Any]) -> None:
        """Run a command of the browser; a widget without commands ignores it."""

    def _set_traits(self, changes: dict[str, Any]) -> None:
        """Set traits without sending them back, which could replace a later change in the browser."""
        with self._lock_property(**changes), self.hold_trait_notifications():
            for name, value in changes.items():
                setattr(self, name, value)

    def _apply(self, given: object, apply: Callable[[dict[str, Any]], None]) -> None:
        if not isinstance(given, dict):
            return
        changes = {name: value for name, value in given.items() if name in self.browser_traits}
        accepted = False
        with self._report_errors():
            apply(changes)
            accepted = True
        if not accepted:
            self.send_state(list(changes))

    @contextmanager
    def _report_errors(self, where: str = "") -> Iterator[None]:
        """Show an exception in the browser, after the words `where`."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  every error is shown in the browser
            self.error = error
            self._show_error(": ".join(filter(None, (where, error_text(error)))))

    def _show_error(self, text: str) -> None:
        """Show an error in the browser."""
        raise NotImplementedError


def error_text(error: BaseException | None) -> str:
    """The message of an error, with its type if it is not a user's error."""
    if error is None:
        return ""
    return str(error) if isinstance(error, HeadnbError) else f"{type(error).__name__}: {error}"

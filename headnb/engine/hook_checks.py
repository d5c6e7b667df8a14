"""Check that hooks ran. A forward pass that skips a hook would otherwise leave the model unchanged without an error."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from headnb.engine.decoders import decoder_of
from headnb.engine.threads import this_thread_check
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from transformers import PreTrainedModel

_Target = TypeVar("_Target", int, nn.Module)


@contextmanager
def check_hooks_ran(model: PreTrainedModel, wanted: Collection[_Target]) -> Iterator[Callable[[_Target], None]]:
    """Check on exit that the forward passes inside reached every target.

    Args:
        model: the model that runs inside.
        wanted: targets: layer numbers or attention modules; if empty, nothing is checked.

    Yields:
        The function that each hook calls with its target.

    Raises:
        HeadnbError: a forward pass of the decoder did not reach a target, or passes ran only in other threads.
    """
    if not wanted:
        yield lambda _: None
        return
    ours = this_thread_check()
    reached: set[_Target] = set()
    passes = {True: 0, False: 0}  # of this thread, of others

    def count(*_: object) -> None:
        passes[ours()] += 1

    with decoder_of(model).register_forward_hook(count):
        yield reached.add
    missing = [target for target in wanted if target not in reached]
    if missing and passes[True]:
        raise HeadnbError(
            f"a forward pass of {type(model).__name__} did not run the attention of {_target_names(model, missing)}, "
            "so its heads were neither read nor changed; headnb does not support this model"
        )
    if missing and passes[False]:
        raise HeadnbError(
            "the model ran in another thread, where the hooks of this context have no effect; run it in the thread "
            "that opened the context"
        )


def _target_names(model: nn.Module, targets: list[_Target]) -> str:
    """The first three targets, for errors."""
    names = {module: name for name, module in model.named_modules()}
    return ", ".join(f"layer {target}" if isinstance(target, int) else names.get(target, "?") for target in targets[:3])

"""A check that hooks ran: a pass that does not reach them would leave a model unchanged without a sign of it."""

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
    """Check on exit that the forward passes inside reached every place; what is yielded is called with each.

    Args:
        model: the model that runs inside.
        wanted: numbers of layers, or attention modules; none: nothing is checked.

    Raises:
        HeadnbError: a whole pass ran and did not reach one of them, or passes ran in other threads only.
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
    missing = [place for place in wanted if place not in reached]
    if missing and passes[True]:
        raise HeadnbError(
            f"a forward pass of {type(model).__name__} did not call the attention of {_target_names(model, missing)}, "
            "so its "
            "heads were neither seen nor changed; headnb cannot work on this model"
        )
    if missing and passes[False]:
        raise HeadnbError(
            "the model ran in another thread, where its heads stay as they are; run it in the thread that opened the "
            "context"
        )


def _target_names(model: nn.Module, places: list[_Target]) -> str:
    name = {module: name for name, module in model.named_modules()}
    return ", ".join(f"layer {place}" if isinstance(place, int) else name.get(place, "?") for place in places[:3])

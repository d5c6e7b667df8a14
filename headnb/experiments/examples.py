"""One sample of each task, as a notebook shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headnb.display.templating import render
from headnb.tasks.chat_rows import message_text
from headnb.tasks.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headnb.tasks.loading import Task
    from headnb.tasks.samples import Text


@dataclass(frozen=True, repr=False)
class Examples:
    """The sample with the median length of the prompt of each task, as the value of a notebook cell.

    Attributes:
        tasks: name -> task.
    """

    tasks: Mapping[str, Task]

    def _repr_html_(self) -> str:
        return render("examples.html", rows=list(self._rows()))

    def __repr__(self) -> str:
        return "\n\n".join(f"{name}\n{prompt}{completion}" for name, prompt, completion in self._rows())

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        """Name of the task, prompt and completion."""
        for name, task in self.tasks.items():
            texts = [sample for sample in task.samples if isinstance(sample, Sample)]
            if not texts:
                yield name, f"{len(task)} encoded samples, without text", ""
                continue
            texts.sort(key=lambda sample: len(_plain_text(sample.prompt)))
            median = texts[(len(texts) - 1) // 2]
            yield name, _plain_text(median.prompt), _plain_text(median.completion)


def _plain_text(text: Text) -> str:
    return text if isinstance(text, str) else "\n".join(map(message_text, text))

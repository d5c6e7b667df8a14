"""Pages of the API reference: one for each section of the public names, and one for the accessors `.heads`."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from headnb.accessor import PatternHeads, ScoresHeads

if TYPE_CHECKING:
    from pathlib import Path

SECTIONS = {  # package of headnb -> title of its page; another package has a page with its own name
    "models": "Models and tasks",
    "tasks": "Models and tasks",
    "scoring": "Scores",
    "storage": "Scores",
    "stats": "Comparisons",
    "accessor": "Grids and explorer",
    "explorer": "Grids and explorer",
    "engine": "Interventions",
    "tuning": "Fine-tuning",
    "analysis": "Analysis",
    "errors": "Errors",
}
INDEX = """\
# API reference

Functions and classes are attributes of `headnb`; importing headnb also adds `.heads` to xarray objects. The command
line and the magics have the same options: see `headnb COMMAND --help` and `%headscore?`.

| page | names |
|---|---|
{rows}
| [Methods of `.heads`](heads.md) | patterns; scores and comparisons |

```{{toctree}}
:hidden:

{pages}
heads
```
"""
HEADS = """\
# Methods of `.heads`

Importing headnb adds `.heads` to xarray objects: to patterns (a `DataArray`), and to scores and comparisons
(a `Dataset`).

## Patterns

{pattern}

## Scores and comparisons

{scores}
"""


def write_api_pages(stub: Path, folder: Path) -> None:
    """Write the pages of the names in a type stub, and their index, to a new folder."""
    folder.mkdir()
    sections = names_by_section(stub)
    for title, names in sections.items():
        _write(folder, title, "\n\n".join([f"# {title}", *map(_documented, names)]))
    rows = "\n".join(f"| [{title}]({_page(title)}.md) | {_links(names)} |" for title, names in sections.items())
    _write(folder, "index", INDEX.format(rows=rows, pages="\n".join(map(_page, sections))))
    _write(folder, "heads", HEADS.format(pattern=_methods(PatternHeads), scores=_methods(ScoresHeads)))


def names_by_section(stub: Path) -> dict[str, list[str]]:
    """Title of a section -> its public names."""
    imports = [node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
    sections: dict[str, list[str]] = {title: [] for title in SECTIONS.values()}
    for node in imports:
        package = (node.module or "").split(".")[0]
        names = sections.setdefault(SECTIONS.get(package, package.capitalize()), [])
        names += [alias.name for alias in node.names]
    return {title: names for title, names in sections.items() if names}


def _documented(name: str) -> str:
    if name[0].isupper():
        return _directive(f"autoclass:: headnb.{name}", ":members:")
    return _directive(f"autofunction:: headnb.{name}")


def _methods(accessor: type) -> str:
    names = [name for name in vars(accessor) if not name.startswith("_")]
    where = f"headnb.accessor.{accessor.__name__}"
    return "\n\n".join(_directive(f"automethod:: {where}.{name}") for name in [*names, "__getitem__"])


def _directive(text: str, *options: str) -> str:
    return "\n".join(["```{eval-rst}", f".. {text}", *(f"   {option}" for option in options), "```"])


def _links(names: list[str]) -> str:
    return ", ".join(f"{{py:obj}}`~headnb.{name}`" for name in names)


def _page(title: str) -> str:
    return title.lower().replace(" ", "_").replace("-", "_")


def _write(folder: Path, title: str, text: str) -> None:
    (folder / f"{_page(title)}.md").write_text(text.rstrip() + "\n", encoding="utf-8")

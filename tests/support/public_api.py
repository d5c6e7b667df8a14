"""The public API as text: every public name with its signature. `python tests/support/public_api.py` writes it.

griffe reads the sources without importing them. A change of the snapshot is a change of the API for users, and belongs
in CHANGELOG.md.
"""

from __future__ import annotations

from pathlib import Path

import griffe

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "tests" / "fixtures" / "public_api.txt"
ACCESSORS = ("headnb.accessor.pattern_heads.PatternHeads", "headnb.accessor.scores_heads.ScoresHeads")


def public_api() -> str:
    """One line per name: functions with their parameters, classes with their public methods."""
    package = griffe.load("headnb", search_paths=[str(ROOT)], resolve_aliases=True)
    stub = griffe.visit("stub", filepath=Path("stub.pyi"), code=(ROOT / "headnb" / "__init__.pyi").read_text())
    targets = {name: member.target_path.lstrip(".") for name, member in stub.members.items() if member.is_alias}
    lines = []
    for name, target in sorted(targets.items()):
        path = target.removeprefix("stub.").removeprefix("headnb.")
        lines += _lines(f"headnb.{name}", package[path])
    for path in ACCESSORS:
        lines += _lines(path.rpartition(".")[2], package[path.removeprefix("headnb.")])
    return "\n".join(lines) + "\n"


def _lines(name: str, item: griffe.Object | griffe.Alias) -> list[str]:
    if item.is_function:
        return [f"{name}({_parameters(item)}) -> {item.returns}"]
    lines = [name]
    inherited = item.inherited_members if item.is_class else {}
    members = {**inherited, **{key: found for key, found in item.members.items() if not found.is_alias}}
    for member, found in sorted(members.items()):
        public = not member.startswith("_") or member in {"__getitem__", "__init__"}
        if item.is_class and public:
            lines += _lines(f"{name}.{member}", found)
    return lines


def _parameters(function: griffe.Function) -> str:
    marks = {
        griffe.ParameterKind.var_positional: "*",
        griffe.ParameterKind.var_keyword: "**",
    }
    parts, keywords = [], False
    for parameter in function.parameters:
        if parameter.kind is griffe.ParameterKind.keyword_only and not keywords:
            parts.append("*")
            keywords = True
        text = f"{marks.get(parameter.kind, '')}{parameter.name}"
        text += f": {parameter.annotation}" if parameter.annotation is not None else ""
        text += f" = {parameter.default}" if parameter.default is not None and parameter.kind not in marks else ""
        parts.append(text)
    return ", ".join(parts)


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api())

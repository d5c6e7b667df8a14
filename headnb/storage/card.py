"""Card (README.md) of scores on the Hugging Face hub, in Markdown with YAML metadata.

Names of models and tasks are data of others: Markdown's punctuation is escaped, and the hub's library writes the YAML.
"""

from __future__ import annotations

import html
import json
import math
import re
from typing import TYPE_CHECKING, Any

from headnb.display.grid_text import format_with_interval
from headnb.errors import one_line
from headnb.stats import patterns
from headnb.stats.results import method_label, method_units
from headnb.stats.score_statistics import head_intervals
from headnb.stats.scoring_revision import revision_of
from headnb.stats.tables import head_table

if TYPE_CHECKING:
    import xarray as xr

TOP_HEADS = 10
_METADATA = ("model", "model_fingerprint", "task", "method")  # attributes in the YAML
_PUNCTUATION = re.compile(r"([!#$%()*+./:=?@\[\\\]^_`{|}~])")


def card(scores: xr.Dataset, repository: str) -> str:
    """README.md of a repository with these scores."""
    attrs = scores.attrs
    model, task = (escaped(attrs.get(name) or f"unknown {name}") for name in ("model", "task"))
    facts = "\n".join(f"| {name} | {escaped(value)} |" for name, value in _facts(scores).items() if value != "")
    return f"""---
{_metadata(scores)}
---

# Attention-head scores of {model} on {task}

![Grid of the scores, layers by heads](pattern.png)

| | |
|---|---|
{facts}

## Strongest heads

{_strongest(scores)}

## Load

```python
# pip install headnb
import headnb

scores = headnb.open_scores("hf://{repository}")
scores.heads.grid()
```

`hf://{repository}@COMMIT` opens the files of one commit. Opened scores stay in the cache and open without a network.

## Files

- `scores.nc`: the scores of all samples, layers and heads, with the settings as attributes (netCDF, opens in xarray)
- `pattern.heads.json`: the grid, which opens in JupyterLab with headnb
- `pattern.png`: the picture above
"""


def escaped(value: object) -> str:
    """Text that Markdown and HTML show unchanged, in one line."""
    return html.escape(_PUNCTUATION.sub(r"\\\1", one_line(value)))


def _facts(scores: xr.Dataset) -> dict[str, Any]:
    attrs = scores.attrs
    units = method_units(attrs)
    count, requested = scores.sizes.get("sample", 0), attrs.get("samples_requested", "")
    versions = ", ".join(f"{name} {version}" for name, version in _versions(attrs).items())
    shape = f"{scores.sizes['layer']} layers × {scores.sizes['head']} heads"
    return {
        "Model": attrs.get("model", ""),
        "Weights": attrs.get("weights_source", ""),
        "Fingerprint of the weights": attrs.get("model_fingerprint", ""),
        "Heads": shape,
        "Task": attrs.get("task", ""),
        "Samples": (f"{count} of {requested}" if requested not in {"", count} else count) or "",
        "Method": f"{method_label(attrs)} ({attrs.get('method', 'activation')})",
        "Unit": units,
        "Loss": attrs.get("loss_reduction", ""),
        "Reliability": patterns.evidence(scores).sentence.removeprefix("Reliability "),
        "Data type": attrs.get("dtype", ""),
        "Seed": attrs.get("seed", ""),
        "Scoring revision": revision_of(attrs),
        "Scored": attrs.get("created", ""),
        "Versions": versions,
    }


def _versions(attrs: dict[str, Any]) -> dict[str, str]:
    try:
        found = json.loads(attrs.get("versions", "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _strongest(scores: xr.Dataset) -> str:
    """Markdown table of the strongest heads with intervals, where the scores have samples."""
    if set(scores["score"].dims) == {"sample", "layer", "head"}:
        columns = head_intervals(scores)
    else:
        columns = patterns.pattern(scores).to_dataset(name="value")
    table = head_table(columns, "value", TOP_HEADS)
    label = "Value and 95 % interval" if "low" in table else "Value"
    rows = [f"| {head} | {format_with_interval(*row)} |" for head, *row in _values(table)]
    return "\n".join([f"| Head | {label} |", "|---|---|", *rows])


def _values(table: Any) -> Any:
    names = [name for name in ("value", "low", "high") if name in table]
    return zip(table.index, *(table[name] for name in names), strict=True)


def _metadata(scores: xr.Dataset) -> str:
    from huggingface_hub import DatasetCardData  # noqa: PLC0415

    attrs = scores.attrs
    evidence = patterns.evidence(scores)
    facts: dict[str, str | float] = {name: one_line(attrs[name]) for name in _METADATA if name in attrs}
    facts |= {"samples": evidence.samples, "scoring_revision": revision_of(attrs)}
    if not math.isnan(evidence.reliability):
        facts["reliability"] = round(evidence.reliability, 3)
    return DatasetCardData(
        pretty_name=one_line(f"Attention-head scores of {attrs.get('model')} on {attrs.get('task')}"),
        tags=["headnb", "attention-heads", "interpretability"],
        viewer=False,  # the hub's viewer does not read netCDF
        headnb=facts,
    ).to_yaml()

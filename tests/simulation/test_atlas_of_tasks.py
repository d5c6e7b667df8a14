"""A pattern atlas of seven tasks of SmolLM2 finds the task of held-out samples.

`-m slow -s` prints the table of docs/sharing.md.
"""

from __future__ import annotations

import dataclasses

import headnb
import pytest

TASKS = ("gsm8k", "svamp", "mbpp", "mathqa_python", "arc_easy", "openbookqa", "boolq")
ALIKE = {"arc_easy": {"openbookqa"}, "openbookqa": {"arc_easy"}}  # science questions with the same wording and answers
N, MOST_TOKENS = 24, 112


def short_samples(name, tokenizer, n):
    """The first samples whose answer is complete within MOST_TOKENS tokens."""
    task = headnb.load_task(name, split="test", n=200, seed=0)
    lengths = [len(tokenizer(sample.prompt + sample.completion).input_ids) for sample in task.samples]
    at = [index for index, length in enumerate(lengths) if length <= MOST_TOKENS][:n]
    return dataclasses.replace(
        task, samples=tuple(task.samples[index] for index in at), ids=tuple(task.ids[index] for index in at)
    )


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.usefixtures("data_folder")
def test_held_out_samples_find_their_task():
    model, tokenizer = headnb.load_model("smollm2-135m")
    scores = {
        name: headnb.score_heads(model, tokenizer, short_samples(name, tokenizer, N), batch_tokens=1024)
        for name in TASKS
    }
    atlas = headnb.atlas({name: of.isel(sample=slice(N // 2)) for name, of in scores.items()})
    for name, of in scores.items():
        found = atlas.nearest(of.isel(sample=slice(N // 2, None)), 3)
        print(f"\n{name}, held-out half\n{found}")
        assert found.table.index[0] in {name} | ALIKE.get(name, set())
        best, own = found.table.iloc[0], found.table.loc[name]
        assert own["high"] >= best["low"]

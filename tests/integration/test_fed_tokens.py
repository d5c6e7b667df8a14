"""A task row gives the same tokens and labels in scoring, training, tracking, evaluation and selection.

The inputs of a training are recorded at the model's call. Losses are compared with the loss of transformers for the
explicit tokens and labels in this file.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import headnb
import numpy as np
import pytest
import torch
from headnb.display.payload import payload
from headnb.storage.reading import open_scores

from tiny import framing_tokenizer, tiny_model

TOKENIZER = framing_tokenizer()
TOKENIZER.chat_template = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|start|>{{ m.role }}\n"
    "{% if loop.last and m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
    "{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TOOLS = [{"name": "add"}]
USER, ANSWER = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}

ENCODED = [
    {"input_ids": [0, 0, 9, 10, 11], "labels": [-100, -100, -100, 10, 11], "attention_mask": [0, 0, 1, 1, 1]},
    {"input_ids": [12, 13, 14, 0], "labels": [-100, -100, 14, 0], "attention_mask": [1, 1, 1, 0]},
    {
        "input_ids": [20, 21, 22, 23, 24, 25, 26, 0],
        "completion_mask": [0, 1, 1, 0, 1, 1, 1, 0],
        "position_ids": [0, 1, 2, 0, 1, 2, 3, 0],
    },
    {"input_ids": [30, 31, 32, 33], "completion_mask": [0, 1, 1, 1], "assistant_masks": [0, 0, 1, 1]},
]
OF_ENCODED = [([9, 10, 11], 1), ([12, 13, 14], 2), ([20, 21, 22], 1), ([23, 24, 25, 26], 1), ([30, 31, 32, 33], 2)]
TEXTS = [("<s>Say 4: ", "4"), ("Say 5: ", "5</s>"), ("Say </s>: ", "6"), ("<s>Say 7:", " 7</s>")]
BARE = [("Say 4: ", "4"), ("Say 5: ", "5"), ("Say </s>: ", "6"), ("Say 7:", " 7")]
CHATS = [
    {"messages": [USER, ANSWER], "tools": TOOLS},
    {"messages": [USER, ANSWER | {"reasoning_content": "Add."}]},
    {"messages": [PARTS, ANSWER]},
]
OF_CHATS = [
    ('[{"name": "add"}]<|start|>user\n2 + 2?<|end|>\n<|start|>assistant\n', "4<|end|>\n"),
    ("<|start|>user\n2 + 2?<|end|>\n<|start|>assistant\n", "(Add.)4<|end|>\n"),
    ("<|start|>user\n2 + 2?<|end|>\n<|start|>assistant\n", "4<|end|>\n"),
]


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def parted(prompt: str, completion: str) -> tuple[list[int], int]:
    """Tokens of prompt and completion, and the number of leading tokens that belong to the prompt."""
    alone, whole = ids(prompt), ids(prompt + completion)
    same = [a == b for a, b in zip(alone, whole, strict=False)]
    return whole, same.index(False) if False in same else len(alone)


def expected(family: str) -> list[tuple[list[int], int]]:
    """Token ids of each sample, and the index of its first answer token."""
    if family == "encoded":
        return OF_ENCODED
    if family == "official":
        return [([1, *ids(prompt), *ids(completion), 2], 1 + len(ids(prompt))) for prompt, completion in BARE]
    if family == "trl":
        return [([1, *whole, 2], 1 + start) for whole, start in (parted(*texts) for texts in BARE)]
    return [(ids(prompt) + ids(completion), len(ids(prompt))) for prompt, completion in OF_CHATS]


ROWS: dict[str, Any] = {"encoded": ENCODED, "official": TEXTS, "trl": TEXTS, "chat": CHATS}


def labels_of(tokens: list[int], start: int) -> list[int]:
    return [-100] * start + tokens[start:]


def losses(family: str) -> np.ndarray:
    """Loss of each sample, computed separately by transformers."""
    model = tiny_model()
    with torch.no_grad():
        return np.array(
            [
                float(model(input_ids=torch.tensor([tokens]), labels=torch.tensor([labels_of(tokens, start)])).loss)
                for tokens, start in expected(family)
            ]
        )


@contextmanager
def recorded(model: torch.nn.Module) -> Any:
    """Records the inputs of each call of the model: token ids, mask and labels."""
    calls: list[dict[str, Any]] = []
    names = ("input_ids", "attention_mask", "labels")

    def remember(_: Any, __: Any, given: dict[str, Any]) -> None:
        calls.append({name: given[name].clone() for name in names if given.get(name) is not None})

    hook = model.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def unpadded(call: dict[str, Any]) -> list[tuple[list[int], ...]]:
    """The rows of a call without padding: token ids, and labels if the call has labels."""
    parts = [call[name] for name in ("input_ids", "labels") if name in call]
    return [tuple(part[row][mask.bool()].tolist() for part in parts) for row, mask in enumerate(call["attention_mask"])]


@pytest.mark.parametrize("family", ROWS)
def test_scoring_and_evaluation_compute_the_losses_of_these_tokens(family):
    encoding = "trl" if family == "trl" else "official"
    scores = headnb.score_heads(tiny_model(), TOKENIZER, ROWS[family], encoding=encoding)
    np.testing.assert_allclose(scores.loss, losses(family), rtol=1e-5)
    evaluated = headnb.evaluate(tiny_model(), TOKENIZER, ROWS[family], encoding=encoding, answer="none")
    np.testing.assert_allclose(evaluated.loss, losses(family), rtol=1e-5)


@pytest.mark.parametrize("family", ROWS)
def test_evaluation_continues_the_prompts_of_these_tokens(family):
    model = tiny_model()
    with recorded(model) as calls:
        headnb.evaluate(
            model,
            TOKENIZER,
            ROWS[family],
            encoding="trl" if family == "trl" else "official",
            answer="text",
            max_new_tokens=1,
        )
    prompts = [tokens[:start] for tokens, start in expected(family)]
    asked = [sorted(row for (row,) in unpadded(call)) for call in calls if "attention_mask" in call]
    assert sorted(prompts) in asked


@pytest.mark.parametrize("family", ROWS)
def test_training_is_given_these_tokens_and_tracking_scores_them(family):
    model, wanted = tiny_model(), expected(family)
    with recorded(model) as calls:
        tuned = headnb.finetune(
            model,
            TOKENIZER,
            ROWS[family],
            steps=1,
            every=1,
            batch_size=len(wanted),
            inplace=True,
            encoding="trl" if family == "trl" else "official",
            use_cpu=True,
        )
    trained = [call for call in calls if "labels" in call]
    assert sorted(unpadded(trained[0])) == sorted((tokens, labels_of(tokens, start)) for tokens, start in wanted)
    (scores,) = tuned.scores.values()
    np.testing.assert_allclose(scores.loss.sel(step=0), losses(family), rtol=1e-5)
    notes = payload(tuned.study)["panels"][0]["notes"]
    assert any("beginning-of-sequence token" in note for note in notes) == (ROWS[family] is TEXTS)


@pytest.mark.parametrize("family", ["encoded", "official", "chat"])
def test_a_selection_compares_these_tokens(family, tmp_path):
    target = [{"input_ids": [40, 41, 42, 43], "labels": [-100, -100, 42, 43]}]
    chosen = headnb.select_instructions(target, ROWS[family], 2, model=tiny_model(), tokenizer=TOKENIZER, out=tmp_path)
    np.testing.assert_allclose(open_scores(tmp_path / "part-00000.zarr").loss, losses(family), rtol=1e-5)
    assert len(chosen.task) == 2

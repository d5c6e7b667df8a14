"""Special tokens: the tokenizer's own are added once, and special tokens in the text are counted."""

from __future__ import annotations

import headnb
import pytest
from headnb.display.payload import payload
from headnb.engine.tokenization import encode_task, special_tokens
from headnb.tasks.loading import load_task
from headnb.tasks.row_values import IGNORED

from tiny import framing_tokenizer, tiny_model, tiny_tokenizer

ENCODINGS = ["official", "trl"]
FRAMING = framing_tokenizer()


def ids(text):
    return FRAMING(text, add_special_tokens=False)["input_ids"]


# Prompt and completion; their texts between <s> and </s> in the tokens; the notices.
CASES = {
    "plain": (("Say 4: ", "4"), ("Say 4: ", "4"), {}),
    "begins with BOS": (("<s>Say 4: ", "4"), ("Say 4: ", "4"), {"bos_in_text": 1}),
    "ends with EOS": (("Say 4: ", "4</s>"), ("Say 4: ", "4"), {"eos_in_text": 1}),
    "both": (("<s>Say 4: ", "4</s>"), ("Say 4: ", "4"), {"bos_in_text": 1, "eos_in_text": 1}),
    "BOS in the completion of no prompt": (("", "<s>4"), ("", "4"), {"bos_in_text": 1}),
    "EOS in the prompt": (
        ("Say </s>: ", "4"),
        ("Say </s>: ", "4"),
        {"special_tokens_in_text": 1, "samples_with_special_tokens": 1},
    ),
    "control tokens everywhere": (
        ("<s><|start|>a<s>", "4<|end|>4</s>"),
        ("<|start|>a<s>", "4<|end|>4"),
        {"bos_in_text": 1, "eos_in_text": 1, "special_tokens_in_text": 3, "samples_with_special_tokens": 1},
    ),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("case", CASES)
def test_special_tokens_are_added_once_and_those_in_the_text_are_counted(case, encoding):
    texts, (prompt, completion), notices = CASES[case]
    encoded = encode_task(load_task([texts]), FRAMING, encoding=encoding)
    (sample,) = encoded.samples
    tokens = ids(prompt) + ids(completion) if encoding == "official" else ids(prompt + completion)
    assert sample.input_ids.tolist() == [FRAMING.bos_token_id, *tokens, FRAMING.eos_token_id]
    assert sample.labels[-1] == FRAMING.eos_token_id
    assert encoded.notices == notices


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_white_space_after_the_end_of_sequence_token_is_kept(encoding):
    encoded = encode_task(load_task([("Say 4: ", "4</s>\n")]), FRAMING, encoding=encoding)
    assert FRAMING.decode(encoded.samples[0].input_ids) == "<s>Say 4: 4</s>\n"
    assert encoded.notices == {"eos_in_text": 1}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_special_tokens_of_messages_are_counted_but_not_those_of_the_template(encoding):
    row = {"messages": [{"role": "user", "content": "a</s>b<|end|>"}, {"role": "assistant", "content": "4"}]}
    task = load_task([row, {"messages": [row["messages"][1] | {"role": "user"}, row["messages"][1]]}])
    encoded = encode_task(task, FRAMING, encoding=encoding)
    assert encoded.notices == {"special_tokens_in_text": 2, "samples_with_special_tokens": 1}


def test_an_unknown_token_that_also_ends_texts_is_a_special_token():
    tokenizer = tiny_tokenizer()
    tokenizer.unk_token = "<|start|>"
    assert tokenizer.unk_token_id not in special_tokens(tokenizer)
    tokenizer.unk_token = tokenizer.bos_token = tokenizer.eos_token  # as in GPT-2
    assert special_tokens(tokenizer)[tokenizer.eos_token_id] == "</s>"
    encoded = encode_task(load_task([("Say </s>: ", "4</s>")]), tokenizer)
    assert encoded.notices == {"eos_in_text": 1, "special_tokens_in_text": 1, "samples_with_special_tokens": 1}


def test_notices_are_attributes_of_scores_and_notes_under_the_grid():
    rows = [("<s>Say 4: ", "4</s>"), ("Say </s></s>: ", "4"), ("Say 5: ", "5")]
    scores = headnb.score_heads(tiny_model(), FRAMING, rows)
    expected = {"bos_in_text": 1, "eos_in_text": 1, "special_tokens_in_text": 2, "samples_with_special_tokens": 1}
    assert {name: scores.attrs[name] for name in expected} == expected
    assert payload(scores)["panels"][0]["notes"] == [
        "1 prompt(s) already begin with the beginning-of-sequence token; none was added.",
        "1 completion(s) already end with the end-of-sequence token; none was added.",
        "Special tokens in the text of 1 sample(s): 2, read as control tokens.",
    ]
    assert payload(scores.heads.pattern())["panels"][0]["notes"] == payload(scores)["panels"][0]["notes"]
    plain = headnb.score_heads(tiny_model(), FRAMING, rows[2:])
    assert not expected.keys() & plain.attrs.keys()
    evaluated = headnb.evaluate(tiny_model(), FRAMING, rows, answer="none")
    assert {name: evaluated.attrs[name] for name in expected} == expected


def test_text_that_a_template_omits_is_noted_under_the_grid():
    tokenizer = tiny_tokenizer()
    answer = {"role": "assistant", "content": "4"}
    question = {"role": "user", "content": "a"}
    row = {"messages": [question, answer | {"reasoning_content": "Why not."}, question, answer]}
    scores = headnb.score_heads(tiny_model(), tokenizer, [row])
    assert scores.attrs["samples_losing_text"] == 1
    assert payload(scores)["panels"][0]["notes"] == ["The chat template omits text of the prompt in 1 sample(s)."]


def test_the_prompt_of_a_sample_ends_before_the_first_answer_token():
    row = {"input_ids": [5, 6, 7, 8, 9], "labels": [IGNORED, IGNORED, 7, IGNORED, 9]}
    (sample,) = encode_task(load_task([row]), None).samples
    assert sample.prompt.tolist() == [5, 6]

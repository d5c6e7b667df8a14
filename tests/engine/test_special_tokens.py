"""Special tokens of a tokenizer: those that it puts around a text come once, those in the text are counted."""

from __future__ import annotations

import headnb
import pytest
from headnb.display.payload import payload
from headnb.engine.tokenization import IGNORED, encode_task
from headnb.tasks.loading import load_task

from tiny import framing_tokenizer, tiny_model, tiny_tokenizer

ENCODINGS = ["official", "trl"]
FRAMING = framing_tokenizer()


def ids(text):
    return FRAMING(text, add_special_tokens=False)["input_ids"]


# The texts of prompt and completion; what stands between <s> and </s> of the tokens; what is counted.
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
def test_special_tokens_come_once_and_others_are_counted(case, encoding):
    texts, (prompt, completion), notices = CASES[case]
    encoded = encode_task(load_task([texts]), FRAMING, encoding=encoding)
    (sample,) = encoded.samples
    apart = ids(prompt) + ids(completion) if encoding == "official" else ids(prompt + completion)
    assert sample.input_ids.tolist() == [FRAMING.bos_token_id, *apart, FRAMING.eos_token_id]
    assert sample.labels[-1] == FRAMING.eos_token_id
    assert encoded.notices == notices


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_white_space_behind_the_end_of_a_completion_stays_its_last_text(encoding):
    encoded = encode_task(load_task([("Say 4: ", "4</s>\n")]), FRAMING, encoding=encoding)
    assert FRAMING.decode(encoded.samples[0].input_ids) == "<s>Say 4: 4</s>\n"
    assert encoded.notices == {"eos_in_text": 1}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_special_tokens_in_messages_are_counted_and_not_those_of_the_template(encoding):
    row = {"messages": [{"role": "user", "content": "a</s>b<|end|>"}, {"role": "assistant", "content": "4"}]}
    task = load_task([row, {"messages": [row["messages"][1] | {"role": "user"}, row["messages"][1]]}])
    encoded = encode_task(task, FRAMING, encoding=encoding)
    assert encoded.notices == {"special_tokens_in_text": 2, "samples_with_special_tokens": 1}


def test_scores_say_it_in_their_attributes_and_the_grid_below_it():
    rows = [("<s>Say 4: ", "4</s>"), ("Say </s></s>: ", "4"), ("Say 5: ", "5")]
    scores = headnb.score_heads(tiny_model(), FRAMING, rows)
    expected = {"bos_in_text": 1, "eos_in_text": 1, "special_tokens_in_text": 2, "samples_with_special_tokens": 1}
    assert {name: scores.attrs[name] for name in expected} == expected
    assert payload(scores)["panels"][0]["notes"] == [
        "1 prompt(s) begin with the beginning-of-sequence token already; none was added.",
        "1 completion(s) end with the end-of-sequence token already; none was added.",
        "Special tokens in the text of 1 sample(s): 2, read as control tokens.",
    ]
    assert payload(scores.heads.pattern())["panels"][0]["notes"] == payload(scores)["panels"][0]["notes"]
    plain = headnb.score_heads(tiny_model(), FRAMING, rows[2:])
    assert not expected.keys() & plain.attrs.keys()
    evaluated = headnb.evaluate(tiny_model(), FRAMING, rows, answer="none")
    assert {name: evaluated.attrs[name] for name in expected} == expected


def test_text_that_a_template_leaves_out_is_noted_under_the_grid():
    tokenizer = tiny_tokenizer()
    answer = {"role": "assistant", "content": "4"}
    asked = {"role": "user", "content": "a"}
    row = {"messages": [asked, answer | {"reasoning_content": "Why not."}, asked, answer]}
    scores = headnb.score_heads(tiny_model(), tokenizer, [row])
    assert scores.attrs["samples_losing_text"] == 1
    assert payload(scores)["panels"][0]["notes"] == ["The chat template leaves out text of the prompt in 1 sample(s)."]


def test_the_text_that_is_continued_ends_where_the_first_answer_begins():
    row = {"input_ids": [5, 6, 7, 8, 9], "labels": [IGNORED, IGNORED, 7, IGNORED, 9]}
    (sample,) = encode_task(load_task([row]), None).samples
    assert sample.prompt.tolist() == [5, 6]

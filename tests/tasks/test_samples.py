"""A row becomes a sample, or a one-line error that names the row and the cause."""

from __future__ import annotations

import pytest
from headnb import HeadnbError
from headnb.tasks import files
from headnb.tasks.loading import Sample, TokenSample, load_task

pytestmark = pytest.mark.usefixtures("nothing_outside")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"prompt": "a", "completion": "b"}, b"{'a': 1}"], r"pairs\.jsonl line 2 is not JSON"),
        ([{"prompt": "a", "completion": "b"}, b"", b"[1, 2]"], r"line 3 is a JSON list"),
        ([b"", b"", b"[1, 2]"], r"pairs: sample 0 is an int"),
        ([b'{"prompt": "\xff", "completion": "b"}'], r"line 1 is not UTF-8"),
        ([b"[" * 100_000], r"pairs\.jsonl is not JSON"),
        ([b"1" * 5000], r"pairs\.jsonl is text, not JSON Lines: it begins with '1111"),
        ([b"prompt,completion", b"a,b"], r"pairs\.jsonl is text, not JSON Lines: it begins with 'prompt,completion"),
        ([{"question": "a", "completion": "b"}], r"line 1 lacks 'prompt'; it has 'question', 'completion'"),
        ([{"prompt": "a", "completion": " \n"}], r"line 1: the completion is empty"),
        ([{"prompt": "a", "completion": 3}], r"line 1: completion is an int, not text"),
        ([{"prompt": "a", "completion": None}], r"line 1: completion is empty \(None\)"),
        ([{"prompt": "a", "completion": [{"role": "assistant"}]}], r"'role' and 'content'"),
        ([{"prompt": "a", "completion": [{"role": "x", "content": "y"}]}], r"both be text or both be chat"),
        (
            [{"messages": [{"role": "user", "content": "y"}] * 2}],
            r"last message is scored and must be from the assistant",
        ),
        ([b'{"prompt": "\\ud800", "completion": "b"}'], r"unpaired surrogate \(position 0\)"),
        ([{"input_ids": [1, 2]}], r"neither 'labels' nor 'completion_mask'"),
        ([{"input_ids": [1, 2], "labels": [1]}], r"2 input_ids but 1 labels"),
        ([{"input_ids": [1, 2], "labels": [1, -100]}], r"no token has a label"),
        ([{"input_ids": [[1, 2]], "labels": [[1, 2]]}], r"flat list of integers"),
        ([{"input_ids": [1, -5], "labels": [1, 2]}], r"0 or more"),
        ([{"id": 1.5, "prompt": "a", "completion": "b"}], r"the id of sample 0 is a float"),
        ([{"id": 1, "prompt": "a", "completion": "b"}] * 2, r"sample id 1 twice"),
        (
            [{"prompt": "a", "completion": "b"}, {"input_ids": [1, 2], "labels": [1, 2]}],
            r"mixes text samples and encoded",
        ),
        ([b""], r"has no samples"),
        ([{"id": 1, "prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b"}], r"line 2 has no id, while"),
        ([{"id": i, "prompt": "a", "completion": "b"} for i in (1, "1")], r"some sample ids are text and some"),
        ([{"id": 2**63, "prompt": "a", "completion": "b"}], r"id of sample 0 is a number of more than 64 bits"),
        ([{"id": True, "prompt": "a", "completion": "b"}], r"the id of sample 0 is a bool"),
        ([{"id": [1], "prompt": "a", "completion": "b"}], r"the id of sample 0 is a list"),
        ([{"id": "a\0", "prompt": "a", "completion": "b"}], r"the id of sample 0 contains a null character"),
        ([b'{"id": "\\ud800", "prompt": "a", "completion": "b"}'], r"id of sample 0 contains an unpaired surrogate"),
        ([{"input_ids": [1, 2], "completion_mask": [0, 1, 1]}], r"2 input_ids but 3 entries in completion_mask"),
        ([{"input_ids": [1, 2**40], "labels": [1, 2]}], r"more than 31 bits"),
    ],
)
def test_bad_line_is_one_plain_error(jsonl, lines, message):
    with pytest.raises(HeadnbError, match=message) as caught:
        load_task(jsonl(*lines))
    assert "\n" not in str(caught.value)


def test_too_long_a_line_is_not_read_into_memory(jsonl, monkeypatch):
    monkeypatch.setattr(files, "LINE_LIMIT", 1000)
    with pytest.raises(HeadnbError, match="line 2 is longer"):
        load_task(jsonl({"prompt": "a", "completion": "b"}, b'{"prompt": "' + b"a" * 2000))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{none}", r"does not fit the template '{none}': column 'none' is empty \(None\), not text or a number"),
        ("{yes}", r"column 'yes' is a bool, not text or a number"),
        ("{many}", r"column 'many' is a list of length 1, not text or a number"),
        ("{missing}", r"does not fit the template '{missing}': no column 'missing'; it has"),
        ("{text.__class__}", r"may contain only column names"),
        ("{many[0]}", r"may contain only column names"),
        ("{text:>30000000}", r"may contain only column names"),
        ("{text!r}", r"may contain only column names"),
        ("{text:{number}}", r"may contain only column names"),
        ("{}", r"may contain only column names"),
        ("{text", r"is not valid: expected '}'"),
        ("many", r"completion|chat message"),
        ("none", r"completion is empty \(None\)"),
        ("yes", r"column 'yes' is a bool"),
        ("infinite", r"column 'infinite' is a float, not text or a number"),
        ("huge", r"column 'huge'.* digits"),
    ],
)
def test_template_takes_text_and_numbers_of_columns_only(template, message):
    row = {"text": "x", "number": 3, "none": None, "yes": True, "many": [1]}
    row |= {"infinite": float("inf"), "huge": 10**300 * 10**5000 if template == "huge" else 0}
    with pytest.raises(HeadnbError, match=message) as caught:
        load_task([row], fields={"prompt": "text", "completion": template})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"prompt": "a", "completion": "b"}, {"id": "uid"}),
        ({"prompt": "a", "answer": "b"}, {"completion": "answer", "id": "uid"}),
        ({"question": "a", "completion": "b", "input_ids": [1]}, {"prompt": "{question}", "id": "uid"}),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, {"id": "uid"}),
        ({"input_ids": [1, 2], "labels": [-100, 2]}, {"id": "uid"}),
        ({"tokens": [1, 2], "labels": [-100, 2]}, {"input_ids": "tokens", "id": "uid"}),
        ({"input_ids": [1, 2], "y": [-100, 2], "completion_mask": [1, 1]}, {"labels": "y", "id": "uid"}),
    ],
)
def test_columns_that_fields_does_not_name_keep_their_names(row, fields):
    task = load_task([row | {"uid": "u"}], fields=fields)
    assert task.ids == ("u",)
    expected = {
        "messages": Sample([{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}]),
        "labels": TokenSample([1, 2], [-100, 2]),
        "y": TokenSample([1, 2], [-100, 2]),
    }
    assert task.samples == (next((made for name, made in expected.items() if name in row), Sample("a", "b")),)


def test_a_column_is_not_both_prompt_and_completion_by_default():
    with pytest.raises(HeadnbError, match="lacks 'prompt'"):
        load_task([{"prompt": "a"}], fields={"completion": "prompt"})


def test_template_writes_numbers_and_braces():
    row = {"a b": 72, "c": 0.5}
    task = load_task([row], fields={"prompt": "{{{a b}}} ", "completion": "{c}"})
    assert task.samples == (Sample("{72} ", "0.5"),)

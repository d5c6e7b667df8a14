"""Rows of many forms (masks, packed rows, named tuples, transforms) give their samples or a one-line error."""

from __future__ import annotations

import dataclasses
import json
from typing import NamedTuple

import datasets
import headnb
import numpy as np
import pytest
import torch
from headnb import HeadnbError
from headnb.notebook.cell_samples import parse_cell_task
from headnb.tasks import samples
from headnb.tasks.loading import Sample, Task, TokenSample, load_task
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BatchEncoding

from tiny import tiny_model

pytestmark = pytest.mark.usefixtures("nothing_outside")

IDS = [10, 11, 12, 13, 14]
LABELS = [-100, -100, 12, 13, 14]
PLAIN = {"input_ids": IDS, "labels": LABELS}
OTHER = {"input_ids": [20, 21, 22], "labels": [-100, 21, 22]}
WHOLE = TokenSample(IDS, LABELS)
SECOND = TokenSample([20, 21, 22], [-100, 21, 22])
PACKED = {"input_ids": [*IDS, 20, 21, 22], "labels": [*LABELS, -100, 21, 22]}

ONE_SAMPLE = {
    "left padding": {"input_ids": [0, 0, *IDS], "labels": [0, 0, *LABELS], "attention_mask": [0, 0, 1, 1, 1, 1, 1]},
    "left padding, shifted positions": {
        "input_ids": [0, 0, *IDS],
        "labels": [-100, -100, *LABELS],
        "attention_mask": [0, 0, 1, 1, 1, 1, 1],
        "position_ids": list(range(7)),
    },
    "left padding, positions of generate": {
        "input_ids": [0, 0, *IDS],
        "labels": [-100, -100, *LABELS],
        "attention_mask": [0, 0, 1, 1, 1, 1, 1],
        "position_ids": [1, 1, 0, 1, 2, 3, 4],
    },
    "right padding": {"input_ids": [*IDS, 0], "labels": [*LABELS, 0], "attention_mask": [1] * 5 + [0]},
    "a hole": {
        "input_ids": [10, 11, 9, 12, 13, 14],
        "labels": [-100, -100, 9, 12, 13, 14],
        "attention_mask": [1, 1, 0, 1, 1, 1],
    },
    "negative padding": {"input_ids": [-1, *IDS], "labels": [-100, *LABELS], "attention_mask": [0] + [1] * 5},
    "positions": PLAIN | {"position_ids": list(range(5))},
    "packed row of one sample and padding": {
        "input_ids": [*IDS, 0, 0],
        "labels": [*LABELS, -100, -100],
        "position_ids": [0, 1, 2, 3, 4, 0, 0],
    },
    "two masks": {"input_ids": IDS, "completion_mask": [0, 1, 1, 1, 1], "assistant_masks": [1, 0, 1, 1, 1]},
    "assistant mask": {"input_ids": IDS, "assistant_masks": [0, 0, 1, 1, 1]},
    "labels and a mask that agree": PLAIN | {"completion_mask": [0, 1, 1, 1, 1]},
    "no other inputs": PLAIN | {"token_type_ids": [0] * 5, "inputs_embeds": None, "text": "x", "length": 5},
}


@pytest.mark.parametrize(
    "form", ["list", "array", "tensor", "list of numpy", "list of tensors", "batch encoding", "dataset", "jsonl"]
)
@pytest.mark.parametrize("row", ONE_SAMPLE)
def test_masked_positions_are_dropped(row, form, jsonl):
    made = ONE_SAMPLE[row]
    convert = {
        "array": np.array,
        "tensor": torch.tensor,
        "list of numpy": lambda values: [np.int64(value) for value in values],
        "list of tensors": lambda values: list(torch.tensor(values)),
    }.get(form, list)
    rows = [{name: convert(value) if isinstance(value, list) else value for name, value in made.items()}]
    source = {
        "batch encoding": [BatchEncoding(made)],
        "dataset": datasets.Dataset.from_list([made]) if form == "dataset" else None,
        "jsonl": jsonl(made),
    }.get(form, rows)
    task = load_task(source)
    assert (task.samples, task.ids) == ((WHOLE,), (0,))
    assert task.fingerprint() == load_task([PLAIN]).fingerprint()


@pytest.mark.parametrize(
    "how",
    [
        {"position_ids": [0, 1, 2, 3, 4, 0, 1, 2]},
        {"seq_lengths": [5, 3]},
        {"seq_lengths": [5, 3], "position_ids": [0, 1, 2, 3, 4, 0, 1, 2]},
        {"seq_lengths": [5, 0, 3], "attention_mask": [1] * 8},
    ],
)
def test_packed_rows_are_split_into_their_samples(how):
    task = load_task([PACKED | how, PLAIN])
    assert task.samples == (WHOLE, SECOND, WHOLE)
    assert task.ids == ("0/0", "0/1", "1")
    named = load_task([PACKED | how | {"id": "a"}], n=1)
    assert (named.samples, named.ids) == ((WHOLE,), ("a/0",))
    with pytest.raises(HeadnbError, match="sample 0 has 2 packed samples, expected one"):
        Task("t", [PACKED | how], [0], "made here")


def test_a_packed_row_that_is_padded_and_masked_is_split_too():
    row = {
        "input_ids": [0, *IDS, 20, 21, 22, 0],
        "labels": [-100, *LABELS, -100, 21, 22, -100],
        "attention_mask": [0, *[1] * 8, 0],
        "position_ids": [0, 0, 1, 2, 3, 4, 0, 1, 2, 0],
    }
    assert load_task([row]).samples == (WHOLE, SECOND)
    assert load_task([row], n=2).ids == ("0/0", "0/1")
    with pytest.raises(HeadnbError, match=r"has 2 samples .*fewer than n=3"):
        load_task([row], n=3)


def test_samples_of_a_packed_row_without_an_answer_are_left_out():
    row = PACKED | {"labels": [-100] * 5 + [-100, 21, 22], "seq_lengths": [5, 3]}
    assert load_task([row]).ids == ("0/1",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_mask": [1, 1]}, r"5 input_ids but 2 entries in attention_mask"),
        ({"attention_mask": [1, 1, 2, 2, 2]}, r"attention_mask may contain only 0 and 1"),
        ({"attention_mask": [[1] * 5]}, r"attention_mask must be a flat list of integers"),
        ({"attention_mask": [1.0] * 5}, r"attention_mask must be a flat list of integers"),
        ({"attention_mask": "11111"}, r"attention_mask must be a flat list of integers"),
        ({"attention_mask": b"\1\1\1\1\1"}, r"attention_mask must be a flat list of integers"),
        ({"attention_mask": [np.float64(1)] * 5}, r"attention_mask must be a flat list of integers"),
        ({"attention_mask": [0] * 5}, r"no token has a label"),
        ({"position_ids": [0, 1, 3, 4, 5]}, r"must increase by 1 or restart at 0 \(token 2 has 3\)"),
        ({"position_ids": [2, 3, 4, 5, 6]}, r"must increase by 1 or restart at 0 \(token 0 has 2\)"),
        ({"position_ids": [4, 3, 2, 1, 0]}, r"must increase by 1"),
        ({"position_ids": [0, 1]}, r"5 input_ids but 2 position_ids"),
        ({"seq_lengths": [2, 2]}, r"5 input_ids, but seq_lengths add up to 4"),
        ({"seq_lengths": [6, -1]}, r"seq_lengths"),
        ({"seq_lengths": [2, 3], "position_ids": [0, 1, 2, 3, 4]}, r"seq_lengths and position_ids disagree"),
        ({"completion_mask": [0, 0, 0, 1, 1]}, r"labels are set where completion_mask is 0"),
        ({"assistant_masks": [0, 0, 0, 1, 1]}, r"labels are set where assistant_masks is 0"),
        ({"labels": [-100, 12, 13, 14, -100]}, r"labels must equal input_ids or be -100; headnb shifts them itself"),
        (
            {"labels": [-100, -100, 12, 13, -1]},
            r"labels must equal input_ids or be -100.*\(token 4 is 14, its label -1\)",
        ),
        ({"inputs_embeds": [[0.5]]}, r"has 'inputs_embeds', which is not supported"),
        ({"pixel_values": [[0.5]]}, r"has 'pixel_values', which is not supported"),
        ({"token_type_ids": [0, 0, 1, 1, 1]}, r"has 'token_type_ids', which is not supported"),
        ({"cu_seq_lens_q": [0, 2, 5]}, r"has 'cu_seq_lens_q', which is not supported"),
        ({"encoder_outputs": [1]}, r"has 'encoder_outputs', which is not supported"),
        ({"loss_mask": [1] * 5}, r"has 'loss_mask', which is not supported"),
    ],
)
def test_inconsistent_and_unsupported_rows_are_refused(change, message):
    for fields in (None, {"input_ids": "input_ids", "labels": "labels"}):
        if fields and "_mask" in next(iter(change)) and "attention" not in next(iter(change)):
            continue  # with a column for labels given, label masks are not read
        with pytest.raises(HeadnbError, match=message) as caught:
            load_task([PLAIN | change], fields=fields)
        assert "\n" not in str(caught.value)


def test_fields_name_masks_and_keep_the_others():
    row = {"tokens": [0, *IDS], "keep": [0, 0, 0, 1, 1, 1], "attention_mask": [0] + [1] * 5}
    assert load_task([row], fields={"input_ids": "tokens", "assistant_masks": "keep"}).samples == (WHOLE,)
    row = {"tokens": [0, *IDS], "keep": [0, 0, 0, 1, 1, 1], "real": [0] + [1] * 5}
    names = {"input_ids": "tokens", "assistant_masks": "keep", "attention_mask": "real"}
    assert load_task([row], fields=names).samples == (WHOLE,)


@st.composite
def padded_rows(draw):
    """Samples, and one row that contains them packed, padded and with masked tokens in between."""
    samples = [draw(st.lists(st.integers(3, 99), min_size=2, max_size=6)) for _ in range(draw(st.integers(1, 3)))]
    row = {"input_ids": [], "labels": [], "attention_mask": [], "position_ids": []}

    def put(token, label, mask, position):
        for name, value in zip(row, (token, label, mask, position), strict=True):
            row[name].append(value)

    expected = []
    for ids in samples:
        first = draw(st.integers(1, len(ids) - 1))
        labels = [-100] * first + ids[first:]
        expected.append((ids, labels))
        for position, (token, label) in enumerate(zip(ids, labels, strict=True)):
            for _ in range(draw(st.integers(0, 2))):
                put(draw(st.integers(0, 99)), draw(st.sampled_from([-100, 5])), 0, draw(st.integers(0, 9)))
            put(token, label, 1, position)
    for _ in range(draw(st.integers(0, 2))):
        put(0, -100, 0, 0)
    return expected, row


FUZZED = tiny_model(vocabulary=100, seed=3)


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(padded_rows())
def test_scores_of_padded_and_packed_rows_are_those_of_the_samples_alone(case):
    expected, row = case
    found = headnb.score_heads(FUZZED, None, [row])
    assert found.sizes["sample"] == len(expected)
    for index, (ids, labels) in enumerate(expected):
        alone = headnb.score_heads(FUZZED, None, [{"input_ids": ids, "labels": labels}])
        scale = float(abs(alone.score).max())
        np.testing.assert_allclose(found.score[index], alone.score[0], atol=1e-5 * scale)
        with torch.no_grad():
            loss = FUZZED(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        assert float(found.loss[index]) == pytest.approx(float(loss), rel=1e-5)


class Pair(NamedTuple):
    completion: str
    prompt: str


class Question(NamedTuple):
    q: str
    a: str


@dataclasses.dataclass
class Record:
    id: str
    prompt: str
    completion: str


def test_named_tuples_and_dataclasses_are_read_by_name():
    assert load_task([Pair("answer", "question")]).samples == (Sample("question", "answer"),)
    task = load_task([Record("x7", "question", "answer")])
    assert (task.samples, task.ids) == ((Sample("question", "answer"),), ("x7",))
    names = {"prompt": "q", "completion": "a"}
    assert load_task([Question("question", "answer")], fields=names).samples == (Sample("question", "answer"),)
    with pytest.raises(HeadnbError, match=r"lacks 'prompt' and 'completion'; it has 'q', 'a'"):
        load_task([Question("question", "answer")])


def test_a_json_object_with_a_key_twice_is_refused_with_its_line(jsonl):
    twice = b'{"prompt": "a", "prompt": "b", "completion": "c"}'
    with pytest.raises(HeadnbError, match=r"pairs\.jsonl line 2 has the key 'prompt' twice"):
        load_task(jsonl({"prompt": "a", "completion": "b"}, twice))
    with pytest.raises(HeadnbError, match=r"line 3 has the key 'prompt' twice"):
        parse_cell_task(f"\n{twice.decode()}")
    nested = b'{"messages": [{"role": "user", "role": "assistant", "content": "c"}]}'
    with pytest.raises(HeadnbError, match=r"line 1 has the key 'role' twice"):
        load_task(jsonl(nested))


def shout(batch):
    return {"prompt": [text.upper() for text in batch["q"]], "completion": batch["a"], "id": batch["key"]}


def test_the_transform_of_a_data_set_is_respected():
    rows = [{"q": f"q{i} ", "a": f"a{i}", "key": f"k{i}"} for i in range(4)]
    source = datasets.Dataset.from_list(rows).with_transform(shout)
    task = load_task(source)
    assert [sample.prompt for sample in task.samples] == ["Q0 ", "Q1 ", "Q2 ", "Q3 "]
    assert task.ids == ("k0", "k1", "k2", "k3")
    assert load_task(datasets.DatasetDict(test=source), n=1).samples[0].prompt.isupper()
    encoded = datasets.Dataset.from_list([PLAIN | {"mask": [0, 1, 1, 1, 1]}])
    masked = encoded.with_transform(lambda batch: batch | {"attention_mask": [torch.tensor(m) for m in batch["mask"]]})
    assert load_task(masked).samples == (TokenSample(IDS[1:], LABELS[1:]),)


def test_a_transform_that_fails_is_one_line():
    def fails(batch):
        raise RuntimeError("first\nsecond\x1b[2J" + "x" * 900)

    source = datasets.Dataset.from_list([{"prompt": "a", "completion": "b"}]).with_transform(fails)
    with pytest.raises(HeadnbError, match=r"own transform fails \(RuntimeError: first second") as caught:
        load_task(source)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_columns_selected_by_the_format_of_a_data_set_are_read():
    source = datasets.Dataset.from_list([PLAIN | {"position_ids": [9] * 5}])
    chosen = source.with_format("torch", columns=["input_ids", "labels"])
    assert load_task(chosen).samples == (WHOLE,)
    for every in (source, source.with_format("torch", columns=["input_ids", "labels"], output_all_columns=True)):
        with pytest.raises(HeadnbError, match="position_ids must increase by 1"):
            load_task(every)


def test_typed_rows_may_be_packed():
    cell = json.dumps(PACKED | {"seq_lengths": [5, 3]})
    assert parse_cell_task(cell).samples == (WHOLE, SECOND)


def test_plain_rows_keep_their_fingerprints():
    """The fingerprints of earlier versions, so that existing stores of plain tasks can be resumed."""
    pairs = load_task([("a", "b"), ("c", "d")])
    chat = load_task([{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}])
    tokens = load_task([PLAIN])
    assert [task.fingerprint() for task in (pairs, chat, tokens)] == [
        "178d175e7144c14f5999327b684d0541",
        "74c3cad81867cb63535b11c4be876eab",
        "9b5039d59d8dbd3df201454e14ebb304",
    ]


def test_a_further_kind_of_rows_is_an_entry_of_one_table(tmp_path, monkeypatch):
    """Example: preference pairs, whose chosen answer is scored, recognized by the column `chosen`."""

    def read_chosen(row, where):
        return samples._read_pair({**row, "completion": row["chosen"]}, where)

    preferences = samples.RowKind(("chosen", "rejected", "prompt"), (), read_chosen)
    monkeypatch.setattr(samples, "KINDS", (*samples.KINDS, preferences))
    path = tmp_path / "preferences.jsonl"
    path.write_text(json.dumps({"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5", "id": "a"}) + "\n")
    assert load_task(path).samples == (Sample("2 + 2 =", " 4"),)
    path.write_text(json.dumps({"chosen": " 4", "rejected": " 5"}))
    with pytest.raises(HeadnbError, match=r"preferences\.jsonl line 1 lacks 'prompt'; it has 'chosen', 'rejected'"):
        load_task(path)


@pytest.mark.parametrize("fields", ["input_ids", "labels", "completion_mask", "seq_lengths", "messages", "tools", "id"])
def test_fields_name_what_any_kind_of_rows_has(fields):
    samples.check_fields({fields: "column"})
    with pytest.raises(HeadnbError, match="unknown field"):
        samples.check_fields({f"{fields}_": "column"})

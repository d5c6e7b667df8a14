"""Tasks from each source, samples of one seed that contain each other, and one-line errors for bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from headnb import HeadnbError, hub
from headnb.tasks.loading import Sample, Task, TokenSample, load_task
from hypothesis import given
from hypothesis import strategies as st

from mock_datasets import mock_load_dataset

pytestmark = pytest.mark.usefixtures("nothing_outside")

DATASET = datasets.Dataset.from_dict({"q": ["a"]})
PAIRS = [(f"Question: {i} + 1?\nAnswer: ", str(i + 1)) for i in range(20)]


def test_pairs_in_order_with_row_numbers_as_ids():
    task = load_task(PAIRS)
    assert [(s.prompt, s.completion) for s in task.samples] == PAIRS
    assert task.ids == tuple(range(20))
    assert len(task) == 20


def test_sampling_is_seeded_without_replacement_and_ids_are_rows():
    task = load_task(PAIRS, n=8, seed=3)
    assert len(set(task.ids)) == 8
    assert [(s.prompt, s.completion) for s in task.samples] == [PAIRS[i] for i in task.ids]
    assert task == load_task(PAIRS, n=8, seed=3)
    assert task.ids != load_task(PAIRS, n=8, seed=4).ids
    assert task.ids != tuple(sorted(task.ids))


@given(small=st.integers(1, 20), large=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_a_larger_sample_contains_the_smaller_one(small, large, seed):
    small, large = sorted((small, large))
    assert load_task(PAIRS, n=large, seed=seed).ids[:small] == load_task(PAIRS, n=small, seed=seed).ids


def test_each_sample_is_drawn_equally_often():
    firsts = [load_task(PAIRS, n=5, seed=seed).ids for seed in range(400)]
    counts = [sum(i in ids for ids in firsts) for i in range(20)]
    # Binomial(400, 1/4): mean 100, standard deviation 8.7.
    assert all(60 < count < 140 for count in counts)


def test_a_sample_of_a_task_keeps_its_ids():
    task = load_task([{"id": f"q{i}", "prompt": p, "completion": c} for i, (p, c) in enumerate(PAIRS)])
    part = load_task(task, n=3, name="part")
    assert part.name == "part"
    assert set(part.ids) < {f"q{i}" for i in range(20)}


def test_jsonl_with_ids_messages_and_empty_lines(jsonl):
    question, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
    path = jsonl(
        b"\xef\xbb\xbf" + json.dumps({"id": "a", "prompt": "x", "completion": "y"}).encode(),
        b"",
        {"id": "b", "prompt": [question], "completion": [answer]},
        {"id": "c", "messages": [question, answer, question, answer]},
    )
    task = load_task(path)
    assert task.name == "pairs"
    assert task.ids == ("a", "b", "c")
    assert task.samples == (
        Sample("x", "y"),
        Sample([question], [answer]),
        Sample([question, answer, question], [answer]),
    )


def test_encoded_samples():
    rows = [
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]},
        {"input_ids": [5, 6, 7], "completion_mask": [0, 0, 1]},
    ]
    assert load_task(rows).samples == (
        TokenSample([5, 6, 7], [-100, 6, 7]),
        TokenSample([5, 6, 7], [-100, -100, 7]),
    )
    as_tensors = datasets.Dataset.from_list(rows[:1]).with_format("torch")
    assert load_task(as_tensors).samples == (TokenSample([5, 6, 7], [-100, 6, 7]),)


def test_dataset_with_columns_and_templates():
    rows = [{"q": f"{i} {{+}} 1?", "a": str(i + 1), "key": f"k{i}"} for i in range(6)]
    source = datasets.Dataset.from_list(rows)
    fields = {"prompt": "Question: {q}\nAnswer: ", "completion": "a", "id": "key"}
    task = load_task(source, n=4, fields=fields)
    assert task.samples[0].prompt == f"Question: {task.ids[0][1:]} {{+}} 1?\nAnswer: "
    assert [s.completion for s in task.samples] == [str(int(key[1:]) + 1) for key in task.ids]
    with pytest.raises(HeadnbError, match=r"no split 'test'; it has 'train'"):
        load_task(datasets.DatasetDict(train=source), fields=fields)


def test_folder_of_a_data_set(tmp_path):
    rows = [{"question": f"{i}?", "answer": f"{i}!"} for i in range(5)]
    folder = tmp_path / "mine"
    folder.mkdir()
    datasets.Dataset.from_list(rows).to_parquet(folder / "test.parquet")
    task = load_task(folder, fields={"prompt": "question", "completion": "answer"})
    assert task.name == "mine"
    assert [(s.prompt, s.completion) for s in task.samples] == [(r["question"], r["answer"]) for r in rows]
    with pytest.raises(HeadnbError, match="train"):
        load_task(folder, split="train", fields={"prompt": "question", "completion": "answer"})


def test_the_working_folder_is_a_data_set_with_its_name(tmp_path, monkeypatch):
    (folder := tmp_path / "mine").mkdir()
    (folder / "inner").mkdir()
    datasets.Dataset.from_list([{"prompt": "a", "completion": "b"}]).to_parquet(folder / "test.parquet")
    monkeypatch.chdir(folder)
    assert load_task(".").name == "mine"
    monkeypatch.chdir(folder / "inner")
    assert load_task("..").name == "mine"


@pytest.mark.parametrize("name", ["gsm_symbolic", "mbpp"])
def test_a_folder_does_not_hide_the_known_task_of_its_name(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    datasets.Dataset.from_list([{"prompt": "a", "completion": "b"}]).to_parquet(tmp_path / name / "test.parquet")
    known = tmp_path / "known.jsonl"
    known.write_text('{"prompt": "x", "canonical_solution": "y"}\n' * 10)
    monkeypatch.setattr(hub, "download", lambda _: known)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=f"'{name}' is the known task of that name; write './{name}' for the file"):
        assert load_task(name).samples != (Sample("a", "b"),)
    for path in (f"./{name}", tmp_path / name, Path(name)):
        assert load_task(path).samples == (Sample("a", "b"),)


def test_a_sample_is_found_by_an_id_of_the_right_kind():
    assert load_task(PAIRS).only(3).ids == (3,)
    with pytest.raises(HeadnbError, match="the sample ids of samples are numbers, but '3' is a str"):
        load_task(PAIRS).only("3")
    with pytest.raises(HeadnbError, match="the sample ids of samples are text, but 3 is an int"):
        load_task([{"id": "3", "prompt": "a", "completion": "b"}]).only(3)


def test_an_unknown_id_is_compared_with_all_ids():
    task = load_task([{"id": f"q{i}", "prompt": "a", "completion": "b"} for i in range(1000)])
    with pytest.raises(HeadnbError, match=r"did you mean .*'q990'"):
        task.only("q9900")
    with pytest.raises(HeadnbError, match=r"known: q0, q1, .* and 988 more"):
        task.only("zebra")


def test_a_folder_with_links_to_itself_or_thousands_of_files_is_refused_before_it_is_searched(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    for name in "bcd":
        (tmp_path / "a" / name).symlink_to(tmp_path)
    searched = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: searched.append(1))
    with pytest.raises(HeadnbError, match="contains more than 10,000 files and folders; give the file or folder"):
        load_task(tmp_path)
    assert not searched


def test_registry_name_reads_the_data_folder_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADNB_DATA", str(tmp_path))
    (tmp_path / "gsm8k.train.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    task = load_task("gsm8k", split="train")
    assert (task.name, task.samples) == ("gsm8k", (Sample("p", "c"),))
    with pytest.raises(HeadnbError, match=r"no network.*HEADNB_DATA has no gsm8k\.test\.jsonl"):
        load_task("gsm8k", split="test")


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("gsm9k", {}, r"unknown task 'gsm9k'; did you mean 'gsm8k'"),
        ("nothing.jsonl", {}, r"cannot read nothing\.jsonl: No such file"),
        ([], {}, r"has no samples"),
        (PAIRS, {"n": 21}, r"has 20 samples .*fewer than n=21"),
        (PAIRS, {"n": 0}, r"n must be a whole number"),
        (PAIRS, {"n": 2.0}, r"n must be a whole number"),
        (("prompt", "completion"), {}, r"sample 0 is a str"),
        ([3], {}, r"sample 0 is an int"),
        (5, {}, r"cannot load a task from an int"),
        ({"prompt": "a", "completion": "b"}, {}, r"cannot load a task from a dict"),
        (b"gsm8k", {}, r"cannot load a task from a bytes"),
        (PAIRS, {"fields": {"prompt": "q", "completion": "a"}}, r"no column 'q' for 'prompt'"),
        (PAIRS, {"fields": {"prompt": "{q}", "completion": "a"}}, r"does not fit the template '{q}'"),
        ("somebody/something", {}, r"cannot load the data set 'somebody/something': no network"),
        (PAIRS, {"fields": "q"}, r"fields must be a dict .*, not 'q'"),
        (PAIRS, {"fields": {}}, r"fields must be a dict"),
        (PAIRS, {"fields": {"promt": "prompt"}}, r"unknown field 'promt'; did you mean 'prompt'"),
        (PAIRS, {"fields": {"prompt": 3}}, r"'prompt' must name a column or be a template, not an int"),
        (PAIRS, {"fields": {"id": "q"}}, r"no column 'q' for 'id'"),
        (PAIRS, {"seed": None}, r"seed must be a whole number"),
        (PAIRS, {"split": None}, r"split must be a name"),
        (PAIRS, {"name": 5}, r"the name of a task is text"),
        ("", {}, r"the name of the task is empty"),
        ("https://host/x.csv", {}, r"https://host/x\.csv is a URL, which is not read as data; download it"),
        (Path("https://host/x.csv"), {}, r"is a URL, which is not read as data"),
        (DATASET["q"], {}, r"cannot load a task from a Column of a data set; give"),
        ("a\0b.jsonl", {}, r"'a\\x00b\.jsonl' is not a valid name, id or path"),
        ("~nobody-of-this-name/x.jsonl", {}, r"is not a valid name, id or path"),
        ("x" * 300, {}, r"is not a valid name, id or path: File name too long"),
        ("mbpp", {"split": "validation"}, r"unknown split of mbpp 'validation'; known: test, train"),
        (
            "gsm_symbolic",
            {"config": "main"},
            r"config applies to data sets of the hub and folders, not to gsm_symbolic",
        ),
        (
            "gsm_symbolic",
            {"fields": {"prompt": "q", "completion": "a"}},
            r"gsm_symbolic generates its samples; omit fields",
        ),
        (load_task(PAIRS), {"config": "main"}, r"config applies to data sets of the hub and folders, not to a Task"),
        (load_task(PAIRS), {"split": "validation"}, r"a Task has no splits, so it has no split 'validation'"),
        (PAIRS, {"split": "test[:5]"}, r"a list has no splits, so it has no split 'test\[:5\]'"),
        (DATASET, {"split": "dev"}, r"a Dataset has no splits, so it has no split 'dev'"),
        (DATASET.to_iterable_dataset(), {"split": "dev"}, r"an IterableDataset has no splits"),
        (DATASET.to_pandas(), {"split": "dev"}, r"a DataFrame has no splits"),
    ],
)
def test_bad_source_is_one_plain_error(source, arguments, message):
    with pytest.raises(HeadnbError, match=message):
        load_task(source, **arguments)


@pytest.mark.parametrize(
    ("samples", "ids", "message"),
    [
        ([TokenSample([1, 2, 3], [-100, 2])], [0], r"task 't': sample 0: 3 input_ids but 2 labels"),
        ([TokenSample([1, 2], [-100, -100])], [0], r"sample 0: no token has a label"),
        ([TokenSample([1, 2], None)], [0], r"sample 0: labels must be a flat list of integers"),
        ([TokenSample(np.ones((2, 2), int), [1, 2])], [0], r"flat list of integers"),
        ([Sample("a", "")], [0], r"sample 0: the completion is empty"),
        ([Sample("a", "b"), Sample("\ud800", "b")], [0, 1], r"sample 1: prompt contains an unpaired surrogate"),
        ([{"question": "a"}], [0], r"sample 0 lacks 'prompt' and 'completion'"),
        ([Sample("a", "b")], [[0]], r"the id of sample 0 is a list"),
        ([Sample("a", "b")], [True], r"the id of sample 0 is a bool"),
        ([Sample("a", "b")], [-(2**63) - 1], r"more than 64 bits"),
        ([Sample("a", "b")] * 2, [0, "0"], r"some sample ids are text and some are numbers"),
        ([Sample("a", "b")], [0, 1], r"1 samples but 2 ids"),
        ([Sample("a", "b")], None, r"ids must be a list or a tuple, not a NoneType"),
        ({"prompt": "a"}, [0], r"samples must be a list or a tuple, not a dict"),
        ("ab", [0, 1], r"samples must be a list or a tuple, not a str"),
    ],
)
def test_a_task_made_by_hand_is_checked(samples, ids, message):
    with pytest.raises(HeadnbError, match=message) as caught:
        Task("t", samples, ids, "made here")
    assert "\n" not in str(caught.value)


def test_a_task_made_by_hand_holds_what_load_task_would():
    arrays = TokenSample(np.array([5, 6]), np.array([-100, 6]))
    task = Task("t", [arrays, {"input_ids": [7, 8], "labels": [-100, 8]}], np.array([3, 4]), "made here")
    assert task == Task("t", (TokenSample([5, 6], [-100, 6]), TokenSample([7, 8], [-100, 8])), (3, 4), "made here")
    assert {type(key) for key in task.ids} == {int}
    assert {type(token) for token in task.samples[0].input_ids} == {int}


def test_the_search_for_duplicate_ids_is_not_quadratic():
    class Counted(str):
        compared = 0
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            Counted.compared += 1
            return str.__eq__(self, other)

    ids = [Counted(i) for i in range(2000)]
    with pytest.raises(HeadnbError, match="'7' twice"):
        Task("t", [Sample("a", "b")] * 2001, [*ids, Counted(7)], "made here")
    assert Counted.compared < 100


ANSWERS = [{"id": f"own{i}", "key": f"k{i}", "q": f"{i} + 1?", "a": i + 1} for i in range(3)]


@pytest.mark.parametrize("kind", ["list", "jsonl", "dataset", "hub", "folder of data", "card"])
def test_ids_and_numbers_are_the_same_from_every_source(kind, jsonl, tmp_path, monkeypatch):
    mock_load_dataset(monkeypatch, ANSWERS)
    monkeypatch.setenv("HEADNB_DATA", str(tmp_path))
    (tmp_path / "mine.test.jsonl").write_text("\n".join(map(json.dumps, ANSWERS)))
    source = {
        "list": ANSWERS,
        "jsonl": jsonl(*ANSWERS),
        "dataset": datasets.Dataset.from_list(ANSWERS),
        "hub": "somebody/something",
        "folder of data": "mine",
        "card": "gsm8k",
    }[kind]
    columns = {"prompt": "{q} ", "completion": "a"}
    assert load_task(source, fields=columns).ids == ("own0", "own1", "own2")
    assert load_task(source, fields={**columns, "id": "key"}).ids == ("k0", "k1", "k2")
    task = load_task(source, fields={**columns, "id": "{key}/{a}"})
    assert task.ids == ("k0/1", "k1/2", "k2/3")
    assert [sample.completion for sample in task.samples] == ["1", "2", "3"]
    assert load_task(source, fields=columns, n=1, seed=5).ids[0] in {"own0", "own1", "own2"}


def test_without_a_network_nothing_waits(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited to try again"))
    for name in ("winogrande", "code_search_net", "mathqa_python"):
        with pytest.raises(HeadnbError, match="no network"):
            load_task(name, n=4)
    assert not datasets.config.HF_HUB_OFFLINE


def test_fingerprint_changes_with_samples_ids_and_order_only():
    def task(pairs, ids, name="a"):
        return Task(name, tuple(Sample(*pair) for pair in pairs), ids, "here")

    first = task([("a", "b"), ("c", "d")], (0, 1))
    assert first.fingerprint() == task([("a", "b"), ("c", "d")], (0, 1), name="other").fingerprint()
    others = [
        task([("a", "b"), ("c", "e")], (0, 1)),
        task([("", "ab"), ("c", "d")], (0, 1)),
        task([("a", "b"), ("c", "d")], ("0", "1")),
        task([("c", "d"), ("a", "b")], (1, 0)),
        task([("a", "b")], (0,)),
    ]
    assert len({first.fingerprint(), *(other.fingerprint() for other in others)}) == 6


def test_a_task_shows_itself_in_one_line():
    assert repr(load_task(PAIRS)) == "Task('samples', 20 samples from samples in memory)"


def test_import_loads_nothing_heavy():
    code = (
        "import sys, headnb.tasks.loading\n"
        "headnb.tasks.loading.load_task([('a', 'b')])\n"
        "print(sorted({'torch', 'datasets', 'transformers', 'reasoning_gym', 'lm_eval', 'polars'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_shuffled_answers_are_a_permutation_without_fixed_points():
    pairs = [(f"question {i}", f"answer {i}") for i in range(9)]
    task = load_task(pairs, name="quiz")
    shuffled = task.with_shuffled_answers(seed=3)
    assert [sample.prompt for sample in shuffled.samples] == [prompt for prompt, _ in pairs]
    assert sorted(sample.completion for sample in shuffled.samples) == sorted(answer for _, answer in pairs)
    assert all(
        mine.completion != sample.completion for mine, sample in zip(shuffled.samples, task.samples, strict=True)
    )
    assert shuffled.ids == task.ids
    assert shuffled.fingerprint() == task.with_shuffled_answers(seed=3).fingerprint()
    assert shuffled.fingerprint() != task.with_shuffled_answers(seed=4).fingerprint()


@pytest.mark.parametrize(
    ("samples", "message"),
    [([("a", "b")], "one sample"), ([{"input_ids": [1, 2], "labels": [-100, 2]}] * 2, "encoded samples")],
)
def test_answers_that_cannot_be_shuffled_are_refused(samples, message):
    with pytest.raises(HeadnbError, match=message):
        load_task(samples).with_shuffled_answers()

"""Tasks: what each source gives, that draws pair up, and that bad input is one plain error."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import datasets
import numpy as np
import pytest
from headnb import HeadnbError, hub, task_cards, task_sources
from headnb.tasks import Sample, Task, TokenSample, known_tasks, load_task
from hypothesis import given
from hypothesis import strategies as st

PAIRS = [(f"Question: {i} + 1?\nAnswer: ", str(i + 1)) for i in range(20)]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test depends on the hub, or on the data folder unless it asks for it."""
    monkeypatch.setattr(hub, "reachable", lambda *_, **__: False)
    monkeypatch.delenv("HEADNB_DATA", raising=False)


@pytest.fixture
def jsonl(tmp_path):
    def write(*lines):
        path = tmp_path / "pairs.jsonl"
        path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines))
        return path

    return write


def test_pairs_in_order_with_row_numbers_as_ids():
    task = load_task(PAIRS)
    assert [(s.prompt, s.completion) for s in task.samples] == PAIRS
    assert task.ids == tuple(range(20))
    assert len(task) == 20


def test_draw_is_seeded_without_replacement_and_ids_are_rows():
    task = load_task(PAIRS, n=8, seed=3)
    assert len(set(task.ids)) == 8
    assert [(s.prompt, s.completion) for s in task.samples] == [PAIRS[i] for i in task.ids]
    assert task == load_task(PAIRS, n=8, seed=3)
    assert task.ids != load_task(PAIRS, n=8, seed=4).ids
    assert task.ids != tuple(sorted(task.ids))


@given(small=st.integers(1, 20), large=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_a_larger_draw_keeps_the_smaller_one(small, large, seed):
    small, large = sorted((small, large))
    assert load_task(PAIRS, n=large, seed=seed).ids[:small] == load_task(PAIRS, n=small, seed=seed).ids


def test_each_sample_is_drawn_equally_often():
    firsts = [load_task(PAIRS, n=5, seed=seed).ids for seed in range(400)]
    counts = [sum(i in ids for ids in firsts) for i in range(20)]
    # Binomial(400, 1/4): mean 100, standard deviation 8.7.
    assert all(60 < count < 140 for count in counts)


def test_a_task_is_drawn_from_with_its_own_ids():
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
    with pytest.raises(HeadnbError, match="take some of it"):
        load_task(source.to_iterable_dataset(), fields=fields)


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


def test_registry_name_reads_the_data_folder_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADNB_DATA", str(tmp_path))
    (tmp_path / "gsm8k.train.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    task = load_task("gsm8k", split="train")
    assert (task.name, task.samples) == ("gsm8k", (Sample("p", "c"),))
    with pytest.raises(HeadnbError, match=r"no network.*HEADNB_DATA has no gsm8k\.test\.jsonl"):
        load_task("gsm8k", split="test")


def served(monkeypatch, rows):
    """The hub's answer, made here: what load_dataset gives for these rows; the calls are recorded."""
    calls = []

    def load_dataset(path, *, streaming, **arguments):
        calls.append({"path": path, "streaming": streaming, **arguments})
        source = datasets.Dataset.from_list(rows)
        return source.to_iterable_dataset() if streaming else source

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_hub_task_asks_for_its_configuration_and_a_split_with_answers(monkeypatch):
    row = {"sentence": "The _ is big.", "option1": "cat", "option2": "dog", "answer": "2"}
    calls = served(monkeypatch, [row])
    task = load_task("winogrande", split="test")
    assert calls == [
        {
            "path": "allenai/winogrande",
            "name": "winogrande_xl",
            "split": "validation",
            "streaming": False,
        }
    ]
    assert task.samples[0].completion == "the correct answer is option2"


def test_large_hub_task_is_streamed_and_splits_do_not_meet(monkeypatch):
    def said(text):
        return {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": text.upper()}]}

    rows = [said(f"say {i}" if i % 7 else "") for i in range(100)]  # every seventh has no answer
    calls = served(monkeypatch, rows)
    test = load_task("infinity_instruct", split="test", n=8)
    train = load_task("infinity_instruct", split="train", n=70)
    assert calls[0]["streaming"]
    assert {i % 10 for i in test.ids} == {9}
    assert not set(test.ids) & set(train.ids)
    assert all(i % 7 for i in test.ids + train.ids)
    assert test.samples[0].completion == f"SAY {test.ids[0]}"
    with pytest.raises(HeadnbError, match=r"has 9 samples .*n=10 asks for more"):
        load_task("infinity_instruct", split="test", n=10)


def test_own_fields_replace_the_registry_template(monkeypatch):
    served(monkeypatch, [{"question": "Q?", "answer": "A"}])
    task = load_task("gsm8k", fields={"prompt": "{question}\n", "completion": "answer"})
    assert task.samples == (Sample("Q?\n", "A"),)


def test_changed_hub_columns_are_named(monkeypatch):
    served(monkeypatch, [{"problem": "?", "solution": "!"}])
    with pytest.raises(HeadnbError, match=r"question.*it has 'problem', 'solution'.*fields="):
        load_task("gsm8k")


def test_file_of_the_web_comes_out_of_the_cache(monkeypatch, tmp_path):
    rows = [{"prompt": f"\n\ndef f{i}():\n", "canonical_solution": "    return 1"} for i in range(20)]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(hub, "download", lambda _: path)
    task = load_task("mbpp", split="test")
    assert task.ids == (9, 19)
    assert task.samples[0] == Sample("def f9():\n", "    return 1\n")


QUESTION = "Question: Please choose the correct answer to the question: Which?\n\nAnswer1: x Answer2: y Answer3: z"
CHOICES = {"label": ["A", "B", "C"], "text": ["x", "y", "z"]}
ROWS = {
    "gsm8k": ({"question": "Q?", "answer": "1 + 1\n#### 2"}, "Question: Q?\nAnswer: ", "1 + 1\n#### 2"),
    "svamp": (
        {"Body": "Ann has 3 ", "Question": "How many?", "Equation": "( 3.0 - 1.0 )", "Answer": "2.0"},
        "Question: Ann has 3. How many?\nAnswer: ",
        "( 3.0 - 1.0 ) = 2",
    ),
    "arc_easy": (
        {"question": "Which?", "choices": CHOICES, "answerKey": "B"},
        f"{QUESTION}\n\nAnswer format: answer1/answer2/answer3\nAnswer: ",
        "the correct answer is answer2",
    ),
    "openbookqa": (
        {"question_stem": "Which?", "choices": CHOICES, "answerKey": "C"},
        f"{QUESTION}\n\nAnswer format: answer1/answer2/answer3\nAnswer: ",
        "the correct answer is answer3",
    ),
    "boolq": (
        {"question": "is it so", "passage": "...", "answer": False},
        (
            "Question: Please answer the following question with true or false, question: is it so?\n\n"
            "Answer format: true/false\nAnswer: "
        ),
        "the correct answer is false",
    ),
    "hellaswag": (
        {"activity_label": "Golf", "ctx": "A man", "endings": ["a", "b", "c", "d"], "label": "3"},
        (
            "Question: Please choose the correct ending to complete the given sentence: Golf: A man\n\n"
            "Ending1: a Ending2: b Ending3: c Ending4: d\n\n"
            "Answer format: ending1/ending2/ending3/ending4\nAnswer: "
        ),
        "the correct answer is ending4",
    ),
    "winogrande": (
        {"sentence": "The _ ran.", "option1": "cat", "option2": "dog", "answer": "1"},
        (
            "Question: Please choose the correct answer to fill in the blank to complete the given sentence:"
            " The _ ran.\n\nOption1: cat Option2: dog\n\nAnswer format: option1/option2\nAnswer: "
        ),
        "the correct answer is option1",
    ),
    "code_search_net": (
        {"func_documentation_string": "Add.", "func_code_string": "def f(): ..."},
        "Question: Add.\nAnswer: ",
        "def f(): ...",
    ),
    "sgsm": (
        {"question": "Q?", "solution": "def solution(): ..."},
        "Question: Q?\nAnswer: ",
        "def solution(): ...",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_template(name):
    row, prompt, completion = ROWS[name]
    assert task_cards.CARDS[name].template(row) == {"prompt": prompt, "completion": completion}


def choices_of(prompt, completion):
    """The row that a multiple-choice text was made of, read back from the text."""
    question, listed = re.fullmatch(
        r"Question: Please choose the correct answer to the question: (.*)\n\n(.*)\n\n.*\n.*", prompt, re.DOTALL
    ).groups()
    texts = [text.strip(" ") for text in re.split(r"(?:^|(?<= ))Answer\d: ", listed)[1:]]
    labels = [str(i) for i in range(1, len(texts) + 1)]
    return {"question": question, "choices": {"label": labels, "text": texts}, "answerKey": completion[-1]}


@pytest.mark.data
@pytest.mark.parametrize("name", ["arc_easy", "openbookqa", "boolq", "gsm8k", "svamp"])
def test_template_gives_the_text_of_the_data_folder(name, data_folder):
    same = 0
    samples = load_task(data_folder / f"{name}.test.jsonl").samples
    for sample in samples:
        prompt, completion = sample.prompt, sample.completion
        question = prompt.removeprefix("Question: ").removesuffix("\nAnswer: ")
        if name in {"arc_easy", "openbookqa"}:
            row = choices_of(prompt, completion)
        elif name == "boolq":
            row = {"question": re.search(r"question: (.*)\?", question)[1], "answer": completion.endswith("true")}
        elif name == "gsm8k":
            row = {"question": question, "answer": completion}
        else:
            body, _, asked = question.rpartition(". ")
            equation, _, answer = completion.rpartition(" = ")
            row = {"Body": body, "Question": asked, "Equation": equation, "Answer": f"{float(answer)}"}
        same += task_cards.CARDS[name].template(row) == {"prompt": prompt, "completion": completion}
    assert same >= 0.97 * len(samples)  # a few texts hold a separator of their own, and cannot be read back


@pytest.mark.data
def test_every_file_of_the_data_folder_loads(data_folder, monkeypatch):
    monkeypatch.setenv("HEADNB_DATA", str(data_folder))
    for path in sorted(data_folder.glob("*.jsonl")):
        name, split = path.name.split(".")[:2]
        assert len(load_task(name, split=split)) == len(path.read_text().splitlines())


def test_registry_names_groups_and_licences():
    cards = known_tasks()
    assert {"gsm8k", "svamp", "mbpp", "mathqa_python", "arc_easy", "openbookqa", "boolq"} <= set(cards)
    assert {"code_search_net", "hellaswag", "winogrande", "sgsm", "infinity_instruct"} <= set(cards)
    procedural = {name: card.group for name, card in cards.items() if card.procedural}
    assert set(procedural.values()) == {"math", "code", "logic", "language"}
    expected = {"gsm_symbolic": "math", "leg_counting": "math", "codeio": "code", "knights_knaves": "logic"}
    assert {**procedural, **expected, "spell_backward": "language"} == procedural
    assert all(card.licence and card.description and card.origin for card in cards.values())


def test_procedural_samples_are_seeded_and_seeds_and_splits_share_none():
    task = load_task("gsm_symbolic", n=12)
    assert task == load_task("gsm_symbolic", n=12)
    texts = {sample.prompt for sample in task.samples}
    assert len(texts) == 12
    assert all(text.startswith("Question: ") and text.endswith("\nAnswer: ") for text in texts)
    for other in (load_task("gsm_symbolic", n=12, seed=1), load_task("gsm_symbolic", "train", n=12)):
        assert not texts & {sample.prompt for sample in other.samples}
    assert len(load_task("leg_counting")) == 64


def test_procedural_answers_are_right():
    for sample in load_task("basic_arithmetic", n=20).samples:
        term = re.search(r"[-+*/() \d]*\d[-+*/() \d]*", sample.prompt)[0]
        assert eval(term) == int(sample.completion)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"prompt": "a", "completion": "b"}, b"{'a': 1}"], r"pairs\.jsonl line 2 is not JSON"),
        ([b"", b"", b"[1, 2]"], r"line 3 is a JSON list"),
        ([b'{"prompt": "\xff", "completion": "b"}'], r"line 1 is not UTF-8"),
        ([b"[" * 100_000], r"line 1 is not JSON"),
        ([b"1" * 5000], r"line 1 is not JSON"),
        ([{"question": "a", "completion": "b"}], r"line 1 lacks 'prompt'; it has 'question', 'completion'"),
        ([{"prompt": "a", "completion": " \n"}], r"line 1: the completion is empty"),
        ([{"prompt": "a", "completion": 3}], r"line 1: completion is a int, not text"),
        ([{"prompt": "a", "completion": None}], r"line 1: completion is empty \(None\)"),
        ([{"prompt": "a", "completion": [{"role": "assistant"}]}], r"'role' and 'content'"),
        ([{"prompt": "a", "completion": [{"role": "x", "content": "y"}]}], r"both be text or both be chat"),
        ([{"messages": [{"role": "user", "content": "y"}] * 2}], r"last message must be the assistant's"),
        ([b'{"prompt": "\\ud800", "completion": "b"}'], r"half of a character pair \(position 0\)"),
        ([{"input_ids": [1, 2]}], r"neither 'labels' nor 'completion_mask'"),
        ([{"input_ids": [1, 2], "labels": [1]}], r"2 input_ids but 1 labels"),
        ([{"input_ids": [1, 2], "labels": [2, -100]}], r"no token has a label"),
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
        ([{"id": "a\0", "prompt": "a", "completion": "b"}], r"the id of sample 0 holds a null character"),
        ([b'{"id": "\\ud800", "prompt": "a", "completion": "b"}'], r"id of sample 0 holds half of a character pair"),
        ([{"input_ids": [1, 2], "completion_mask": [0, 1, 1]}], r"2 input_ids but a completion_mask of 3"),
        ([{"input_ids": [1, 2**40], "labels": [1, 2]}], r"more than 31 bits"),
    ],
)
def test_bad_line_is_one_plain_error(jsonl, lines, message):
    with pytest.raises(HeadnbError, match=message) as caught:
        load_task(jsonl(*lines))
    assert "\n" not in str(caught.value)


def test_too_long_a_line_is_not_read_into_memory(jsonl, monkeypatch):
    monkeypatch.setattr(task_sources, "LINE_LIMIT", 1000)
    with pytest.raises(HeadnbError, match="line 2 is longer"):
        load_task(jsonl({"prompt": "a", "completion": "b"}, b'{"prompt": "' + b"a" * 2000))


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("gsm9k", {}, r"unknown task 'gsm9k'; did you mean 'gsm8k'"),
        ("nothing.jsonl", {}, r"cannot read nothing\.jsonl: No such file"),
        ([], {}, r"has no samples"),
        (PAIRS, {"n": 21}, r"has 20 samples .*n=21 asks for more"),
        (PAIRS, {"n": 0}, r"n must be a whole number"),
        (PAIRS, {"n": 2.0}, r"n must be a whole number"),
        (("prompt", "completion"), {}, r"sample 0 is a str"),
        ([3], {}, r"sample 0 is a int"),
        (5, {}, r"cannot be made of a int"),
        ({"prompt": "a", "completion": "b"}, {}, r"cannot be made of a dict"),
        (b"gsm8k", {}, r"cannot be made of a bytes"),
        (PAIRS, {"fields": {"prompt": "q", "completion": "a"}}, r"no column 'q' for 'prompt'"),
        (PAIRS, {"fields": {"prompt": "{q}", "completion": "a"}}, r"does not fit the template '{q}'"),
        ("somebody/something", {}, r"cannot load the data set 'somebody/something': no network"),
        (PAIRS, {"fields": "q"}, r"fields must be a dict .*, not 'q'"),
        (PAIRS, {"fields": {}}, r"fields must be a dict"),
        (PAIRS, {"fields": {"promt": "prompt"}}, r"unknown field 'promt'; did you mean 'prompt'"),
        (PAIRS, {"fields": {"prompt": 3}}, r"'prompt' must name a column or be a template, not a int"),
        (PAIRS, {"fields": {"id": "q"}}, r"no column 'q' for 'id'"),
        (PAIRS, {"seed": None}, r"seed must be a whole number"),
        (PAIRS, {"split": None}, r"split must be a name"),
        (PAIRS, {"name": 5}, r"the name of a task is text"),
        ("a\0b.jsonl", {}, r"'a\\x00b\.jsonl' is no name, id or path"),
        ("~nobody-of-this-name/x.jsonl", {}, r"is no name, id or path that can be looked up"),
        ("x" * 300, {}, r"is no name, id or path that can be looked up: File name too long"),
        ("mbpp", {"split": "validation"}, r"no split 'validation'; it has train, test"),
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
        ([Sample("a", "b"), Sample("\ud800", "b")], [0, 1], r"sample 1: prompt holds half of a character pair"),
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


def test_looking_for_an_id_twice_is_not_quadratic():
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
def test_ids_and_numbers_come_alike_from_every_source(kind, jsonl, tmp_path, monkeypatch):
    served(monkeypatch, ANSWERS)
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


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{none}", r"does not fit the template '{none}': column 'none' is empty \(None\), not text or a number"),
        ("{yes}", r"column 'yes' is a bool, not text or a number"),
        ("{many}", r"column 'many' is a list of 1, not text or a number"),
        ("{missing}", r"does not fit the template '{missing}': no column 'missing'; it has"),
        ("{text.__class__}", r"may hold names of columns only"),
        ("{many[0]}", r"may hold names of columns only"),
        ("{text:>30000000}", r"may hold names of columns only"),
        ("{text!r}", r"may hold names of columns only"),
        ("{text:{number}}", r"may hold names of columns only"),
        ("{}", r"may hold names of columns only"),
        ("{text", r"cannot be read: expected '}'"),
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


def test_template_writes_numbers_and_braces():
    row = {"a b": 72, "c": 0.5}
    task = load_task([row], fields={"prompt": "{{{a b}}} ", "completion": "{c}"})
    assert task.samples == (Sample("{72} ", "0.5"),)


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
        "import sys, headnb.tasks\n"
        "headnb.tasks.load_task([('a', 'b')])\n"
        "print(sorted({'torch', 'datasets', 'transformers', 'reasoning_gym'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Registered tasks: requests to the hub, templates of rows, and procedural samples."""

from __future__ import annotations

import json
import re

import pytest
from headnb import HeadnbError, hub
from headnb.tasks import registry
from headnb.tasks.loading import Sample, known_tasks, load_task

from mock_datasets import mock_load_dataset

pytestmark = pytest.mark.usefixtures("nothing_outside")


def test_hub_task_asks_for_its_configuration_and_a_split_with_answers(monkeypatch):
    row = {"sentence": "The _ is big.", "option1": "cat", "option2": "dog", "answer": "2"}
    calls = mock_load_dataset(monkeypatch, [row])
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


def test_large_hub_task_is_streamed_and_splits_are_disjoint(monkeypatch):
    def conversation(text):
        return {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": text.upper()}]}

    rows = [conversation(f"say {i}" if i % 7 else "") for i in range(100)]  # every seventh has no answer
    calls = mock_load_dataset(monkeypatch, rows)
    test = load_task("infinity_instruct", split="test", n=8)
    train = load_task("infinity_instruct", split="train", n=70)
    assert calls[0]["streaming"]
    assert {i % 10 for i in test.ids} == {9}
    assert not set(test.ids) & set(train.ids)
    assert all(i % 7 for i in test.ids + train.ids)
    assert test.samples[0].completion == f"SAY {test.ids[0]}"
    with pytest.raises(HeadnbError, match=r"has 9 samples .*fewer than n=10"):
        load_task("infinity_instruct", split="test", n=10)


def test_own_fields_replace_the_registry_template(monkeypatch):
    mock_load_dataset(monkeypatch, [{"question": "Q?", "answer": "A"}])
    task = load_task("gsm8k", fields={"prompt": "{question}\n", "completion": "answer"})
    assert task.samples == (Sample("Q?\n", "A"),)


def test_changed_hub_columns_are_named(monkeypatch):
    mock_load_dataset(monkeypatch, [{"problem": "?", "solution": "!"}])
    with pytest.raises(HeadnbError, match=r"question.*it has 'problem', 'solution'.*fields="):
        load_task("gsm8k")


def test_task_from_a_url_reads_the_downloaded_file(monkeypatch, tmp_path):
    rows = [{"prompt": f"\n\ndef f{i}():\n", "canonical_solution": "    return 1"} for i in range(20)]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(hub, "download", lambda _: path)
    task = load_task("mbpp", split="test")
    assert task.ids == (9, 19)
    assert task.samples[0] == Sample("def f9():\n", "    return 1\n")
    assert task.source == "amazon-science/mxeval (test)"


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("gsm8k", "tset", r"unknown split of gsm8k 'tset'; did you mean 'test'\?"),
        ("gsm8k", "validation", r"unknown split of gsm8k 'validation'; known: test, train$"),
        ("gsm_symbolic", "trian", r"unknown split of gsm_symbolic 'trian'; did you mean 'train'\?"),
        ("gcd", "dev", r"unknown split of gcd 'dev'; known: test, train, validation$"),
    ],
)
def test_an_unknown_split_is_refused_with_the_nearest_name(name, split, message):
    with pytest.raises(HeadnbError, match=message):
        load_task(name, split=split)


@pytest.mark.parametrize("quote", ['"""', "'''", "'", 'r"""'])
def test_completion_of_code_does_not_contain_the_docstring_of_the_prompt(quote):
    documentation = "Add (two) numbers.\n\n    :param a: the first"
    code = f"def add(a, b):\n    {quote}{{}}{quote.lstrip('r')}\n    return a + b  # Add (two) numbers."
    for docstring in (documentation, f"\n    {documentation}\n    "):
        row = {"func_documentation_string": documentation, "func_code_string": code.format(docstring)}
        filled = registry.CARDS["code_search_net"].template(row)
        assert filled["prompt"] == f"Question: {documentation}\nAnswer: "
        assert filled["completion"] == "def add(a, b):\n    return a + b  # Add (two) numbers."


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
    "math": (
        {"problem": "Q?", "solution": "Thus $\\boxed{2}$."},
        "Question: Q?\nAnswer: ",
        "Thus $\\boxed{2}$.",
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
    assert registry.CARDS[name].template(row) == {"prompt": prompt, "completion": completion}


def choices_of(prompt, completion):
    """The row of a multiple-choice text, parsed from the text."""
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
            body, _, last = question.rpartition(". ")
            equation, _, answer = completion.rpartition(" = ")
            row = {"Body": body, "Question": last, "Equation": equation, "Answer": f"{float(answer)}"}
        same += registry.CARDS[name].template(row) == {"prompt": prompt, "completion": completion}
    assert same >= 0.97 * len(samples)  # a few texts contain a separator and cannot be parsed


@pytest.mark.data
def test_every_file_of_the_data_folder_loads(data_folder, monkeypatch):
    monkeypatch.setenv("HEADNB_DATA", str(data_folder))
    for path in sorted(data_folder.glob("*.jsonl")):
        name, split = path.name.split(".")[:2]
        assert len(load_task(name, split=split)) == len(path.read_text().splitlines())


def test_registry_names_groups_and_licences():
    cards = known_tasks()
    assert {"gsm8k", "svamp", "mbpp", "mathqa_python", "arc_easy", "openbookqa", "boolq"} <= set(cards)
    assert {"code_search_net", "hellaswag", "winogrande", "math", "sgsm", "infinity_instruct"} <= set(cards)
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
    others = [load_task("gsm_symbolic", split, n=12) for split in ("train", "validation")]
    for other in (load_task("gsm_symbolic", n=12, seed=1), *others):
        assert not texts & {sample.prompt for sample in other.samples}
    assert len(load_task("leg_counting")) == 64


def test_procedural_answers_are_right():
    for sample in load_task("basic_arithmetic", n=20).samples:
        term = re.search(r"[-+*/() \d]*\d[-+*/() \d]*", sample.prompt)[0]
        assert eval(term) == int(sample.completion)


def test_each_procedural_task_has_a_description_of_its_own():
    described = [card.description for card in known_tasks().values() if card.procedural]
    assert len(set(described)) == len(described)
    assert not [text for text in described if "procedurally generated" in text or text == "no description yet"]
    assert max(map(len, described)) <= 70

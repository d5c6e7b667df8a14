"""Answers are extracted as a person would read them, and code is never executed."""

from __future__ import annotations

import pytest
from headnb import load_task
from headnb.errors import HeadnbError
from headnb.tasks.registry import CARDS
from headnb.tuning.answers import ANSWER_FORMS, find_answer_form


@pytest.mark.parametrize(
    ("form", "completion", "answer"),
    [
        ("final-number", "She makes 9 * 2 = <<9*2=18>>18.\n#### 18", "18"),
        ("boxed", r"First \boxed{1}, so $x = \boxed{\frac{1}{ 2 }}$.", r"\frac{1}{2}"),
        ("boxed", r"It is \boxed{\frac{1}{2}", ""),
        ("boxed", "boxed{3} is {3}", ""),
        ("final-number", "#### 1,200", "1200"),
        ("final-number", "#### 1200.00 dollars", "1200"),
        ("final-number", "####-3\nQuestion: What is 7?\nAnswer: 7", "-3"),
        ("final-number", "#### $5\n#### 6", "5"),
        ("final-number", "3 eggs and 4 make 7 eggs.", "7"),
        ("final-number", "No idea.", ""),
        ("equation", "( ( 23.0 - 15.0 ) / 4.0 ) = 2", "2"),
        ("equation", "( 893835.0 + 644997.0 ) = 1.53883e+06", "1538830"),
        ("equation", "(15-4)/4 = 11/4 = 2.750 each for 4 boys", "2.75"),
        ("equation", "It is 12.", "12"),
        ("number", "The answer is \u22124.", "-4"),
        ("number", "from 5-3 to 10-4", "4"),
        ("number", "about .50", "0.5"),
        ("number", "-0.0", "0"),
        ("number", "007", "7"),
        ("choice", "the correct answer is answer3", "answer3"),
        ("choice", "Answer1 is wrong, so the answer is: Option 2.", "option2"),
        ("choice", "Ending4", "ending4"),
        ("choice", "(B)", ""),
        ("truth", "the correct answer is true", "true"),
        ("truth", "The answer to this question is: no.", "false"),
        ("truth", "Yes, it is.", "true"),
        ("truth", "There is no evidence that this is false", "false"),
        ("truth", "nothing", ""),
        ("code", "    n0 = 1.0\n\n    return n0  \n\ndef other():\n    pass", "n0 = 1.0\nreturn n0"),
        ("code", "  if n:\n      return 1\n", "if n:\n    return 1"),
        ("code", "def again():", ""),
        ("text", "  a\n b  c\nQuestion: next?", "a b c"),
    ],
)
def test_answer_is_read(form, completion, answer):
    assert ANSWER_FORMS[form].answer(completion) == answer


@pytest.mark.parametrize(
    ("form", "end", "complete"),
    [
        ("final-number", "so #### 18", False),  # 18 may become 180
        ("final-number", "so #### 18\n", True),
        ("number", "12\nQuestion: what", True),
        ("number", "12\n", False),
        ("choice", "the correct answer is answer", False),
        ("choice", "the correct answer is answer3", True),
        ("truth", "the correct answer is no", False),  # no may become nothing
        ("truth", "the correct answer is no.", True),
        ("code", "    x = 1\n", False),
        ("code", "    x = 1\ndef", True),
        ("text", "anything\n\n", False),
    ],
)
def test_a_text_is_complete_when_further_text_cannot_change_the_answer(form, end, complete):
    assert ANSWER_FORMS[form].is_complete(end) is complete


def test_code_is_parsed_and_not_executed(tmp_path):
    body = f"    open({str(tmp_path / 'made')!r}, 'w')\n    return 1\n"
    assert ANSWER_FORMS["code"].answer(body).endswith("return 1")
    assert list(tmp_path.iterdir()) == []


def test_every_card_names_a_form_or_none():
    assert {card.answer for card in CARDS.values()} <= {*ANSWER_FORMS, "none"}


@pytest.mark.parametrize(
    ("answer", "task", "completions", "name"),
    [
        ("auto", "gsm8k", ["#### 1"], "final-number"),
        ("auto", "math", [r"\boxed{2}", "none"], "boxed"),
        ("auto", "math", ["12", "5"], "number"),  # the user's own data with the name of a registered task
        ("auto", "mine", ["12", " -3.5\n"], "number"),
        ("auto", "mine", ["12", "twelve"], "text"),
        ("choice", "mine", ["12"], "choice"),
        (str.upper, "mine", ["12"], "own"),
    ],
)
def test_form_is_that_of_the_card_else_inferred_from_the_completions(answer, task, completions, name):
    assert find_answer_form(answer, task, completions).name == name


def test_a_custom_reader_may_return_none():
    form = find_answer_form(lambda text: text if "x" in text else None, "mine", [])
    assert [form.answer("x"), form.answer("y")] == ["x", ""]


def test_tasks_without_a_form_have_none_and_an_unknown_form_is_named():
    assert find_answer_form("auto", "mbpp", ["    return 1\n"]) is None
    assert find_answer_form("none", "gsm8k", ["#### 1"]) is None
    with pytest.raises(HeadnbError, match="did you mean 'number'"):
        find_answer_form("numbr", "gsm8k", [])
    with pytest.raises(HeadnbError, match="not int"):
        find_answer_form(3, "gsm8k", [])


@pytest.mark.parametrize("name", ["gsm8k", "svamp", "mathqa_python", "arc_easy", "openbookqa", "boolq"])
def test_every_sample_of_the_real_tasks_has_an_answer(data_folder, monkeypatch, name):
    monkeypatch.setenv("HEADNB_DATA", str(data_folder))
    completions = [sample.completion for sample in load_task(name).samples]
    form = find_answer_form("auto", name, completions)
    answers = [form.answer(completion) for completion in completions]
    assert all(answers)
    last = [completion.split()[-1].replace(",", "") for completion in completions]
    if form.name in {"final-number", "equation"}:
        assert list(map(float, answers)) == list(map(float, last))
    elif form.name in {"choice", "truth"}:
        assert answers == last

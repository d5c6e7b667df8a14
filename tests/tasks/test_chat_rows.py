"""Chat rows reach the template with all fields; omitted text of an answer is an error, other lost text is counted."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import datasets
import pytest
import transformers
import trl
from headnb import HeadnbError
from headnb.analysis.selection.pools import sample_keys
from headnb.analysis.selection.views import sample_text
from headnb.engine.tokenization import encode_task
from headnb.explorer.head_detail import sample_texts
from headnb.tasks.loading import load_task
from headnb.tasks.row_values import IGNORED
from packaging.version import Version

from tiny import tiny_tokenizer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"

TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": {}}}]
USER = {"role": "user", "content": "What is 40 + 2?"}
ANSWER = {"role": "assistant", "content": "It is 42."}
THINKING = ANSWER | {"reasoning_content": "Add them."}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"town": 'Zürich "Nord"'}}}],
}
RESULT = {"role": "tool", "name": "weather", "content": "sunny"}
PARTS = [
    {"role": "user", "content": [{"type": "text", "text": "What is 40 + 2?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "42."}]},
]
FORMS = {
    "plain": {"messages": [USER, ANSWER]},
    "reasoning": {"messages": [USER, THINKING]},
    "earlier reasoning": {"messages": [USER, THINKING, USER, ANSWER]},
    "tools": {"messages": [USER, ANSWER], "tools": TOOLS},
    "call": {"messages": [USER, CALL], "tools": TOOLS},
    "call without content": {"messages": [USER, CALL | {"content": None}], "tools": TOOLS},
    "result": {"messages": [USER, CALL, RESULT, ANSWER], "tools": TOOLS},
    "parts": {"messages": PARTS},
}

OK, LOST, REFUSED = "all of it", "text lost", "refused"
# Outcome of each form, determined by reading the templates: a template omits the fields that it does not know.
OUTCOMES = {
    "qwen3": [OK, OK, LOST, OK, OK, OK, OK, REFUSED],
    "qwen2_5": [OK, REFUSED, LOST, OK, OK, OK, OK, REFUSED],
    "llama3": [OK, REFUSED, LOST, LOST, REFUSED, REFUSED, LOST, REFUSED],
    "llama3_1": [OK, REFUSED, LOST, OK, OK, OK, OK, REFUSED],
    "gemma3": [OK, REFUSED, LOST, LOST, REFUSED, REFUSED, REFUSED, OK],
    "gptoss": [OK, OK, LOST, OK, OK, OK, OK, REFUSED],
    "glm4moe": [OK, OK, LOST, OK, OK, OK, OK, OK],
    "idefics3": [REFUSED] * 7 + [OK],
}
CASES = [
    (name, form, outcome) for name, outcomes in OUTCOMES.items() for form, outcome in zip(FORMS, outcomes, strict=True)
]


def with_template(template):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("encoding", ["official", "trl"])
@pytest.mark.parametrize(("name", "form", "outcome"), CASES)
def test_tokens_are_those_of_the_whole_row_or_it_is_refused(name, form, outcome, encoding):
    tokenizer, row = with_template((TEMPLATES / f"{name}.jinja").read_text()), FORMS[form]
    task = load_task([row])
    if (name, form) == ("gptoss", "call without content") and Version(transformers.__version__) < Version("5.23"):
        outcome = REFUSED  # earlier releases pass None to the template
    if outcome == REFUSED:
        with pytest.raises(HeadnbError, match=r"^sample 0 of samples: the chat template") as caught:
            encode_task(task, tokenizer, encoding=encoding)
        assert str(caught.value).isprintable()
        return
    encoded = encode_task(task, tokenizer, encoding=encoding)
    (sample,) = encoded.samples
    together = tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)
    assert tokenizer.decode(sample.input_ids) == together
    if encoding == "trl":
        whole = tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), return_dict=True)
        assert sample.input_ids.tolist() == whole["input_ids"]
    answer = "".join(tokenizer.decode(sample.labels[sample.labels != IGNORED]).split())
    wanted = {"reasoning": ["Addthem.", "Itis42."], "call": ["weather", "Zürich", "Nord"]}
    assert all(text in answer for text in wanted.get(form.replace(" without content", ""), ["Itis42."]))
    assert encoded.notices.get("samples_losing_text", 0) == (outcome == LOST)


@pytest.mark.parametrize("how", ["messages", "prompt and completion", "data set", "fields", "tools as text"])
def test_all_forms_of_a_row_give_the_same_tokens(how):
    tokenizer = with_template((TEMPLATES / "qwen3.jinja").read_text())
    row, source, fields, tools = FORMS["result"], [FORMS["result"]], None, TOOLS
    messages = row["messages"]
    if how == "messages":
        source = [row | {"images": [], "video": None, "audio": "a file's name"}]
    elif how == "prompt and completion":
        source = [{"prompt": messages[:-1], "completion": messages[-1:], "tools": TOOLS}]
    elif how == "data set":  # Arrow gives every message the same fields, and every call the same arguments
        other = CALL | {"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]}
        source = datasets.Dataset.from_list([row, {"messages": [USER, other], "tools": TOOLS}]).select([0])
        assert source[0]["messages"][1]["tool_calls"][0]["function"]["arguments"]["x"] is None
        tools = source[0]["tools"]  # datasets 4 sorts the fields
    elif how == "fields":
        source, fields = [{"talk": messages, "tools": TOOLS}], {"messages": "talk"}
    elif how == "tools as text":
        source = [{"messages": messages, "tools": json.dumps(TOOLS)}]
    expected = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    (sample,) = encode_task(load_task(source, fields=fields), tokenizer).samples
    assert tokenizer.decode(sample.input_ids) == expected


def test_variables_of_the_template_are_passed_to_it():
    tokenizer = with_template("{{ mood }}{% for m in messages %}<{{ m.content }}>{% endfor %}")
    task = load_task([{"messages": [USER, ANSWER], "chat_template_kwargs": {"mood": "calm"}}])
    (sample,) = encode_task(task, tokenizer).samples
    assert tokenizer.decode(sample.input_ids) == "calm<What is 40 + 2?><It is 42.>"
    plain = load_task([{"messages": [USER, ANSWER]}])
    assert task.fingerprint() != plain.fingerprint()
    assert len({*sample_keys(task.samples), *sample_keys(plain.samples)}) == 2


SHORT = "{% for m in messages %}[{{ m.content[:5] }}]{% endfor %}"
PROMPT_ONLY = "It is 42.{% for m in messages %}{{ m.role }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ 1 / 0 }}", "fails on messages with the roles user: ZeroDivisionError: division by zero"),
        ("{{ nothing.at.all }}", "UndefinedError"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{{ [].pop() }}", "SecurityError|IndexError"),
        ("{{ raise_exception('first\nsecond\x1b[2J' + 'x' * 2000) }}", "TemplateError: first second"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ '\ud800' }}", "unpaired surrogate|UnicodeEncodeError"),
        (SHORT, "omits text of the answer: 'It is 42.'"),
        (PROMPT_ONLY, "omits text of the answer"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "omits text of the answer"),
        ("{% if add_generation_prompt %}a{% else %}b{% endif %}", "renders the prompt differently"),
    ],
)
def test_every_failure_of_a_template_is_a_one_line_error(template, message):
    with pytest.raises(HeadnbError, match=message) as caught:
        encode_task(load_task([FORMS["plain"]]), with_template(template))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, ANSWER]},
            r"of type 'image'; only",
        ),
        ({"messages": [{"role": "user", "content": ["x"]}, ANSWER]}, r"part 0 of a message's content is a str"),
        ({"messages": [{"role": "user", "content": []}, ANSWER]}, r"content is a list of length 0"),
        ({"messages": [{"role": "user", "content": None}, ANSWER]}, r"content is empty \(None\)"),
        ({"messages": [USER, ANSWER | {"reasoning_content": 3}]}, r"reasoning_content is an int, not text"),
        ({"messages": [USER, CALL | {"tool_calls": "x"}]}, r"tool_calls are a str, not a list"),
        ({"messages": [USER, ANSWER | {"extra": {1, 2}}]}, r"contains a set; only JSON values are supported"),
        ({"messages": [USER, {"role": "assistant", "content": " ", "reasoning": "\n"}]}, r"completion is empty"),
        ({"tools": "no json"}, r"tools is not JSON"),
        ({"tools": [print]}, r"tools contains a builtin_function"),
        ({"tools": {"name": "x"}}, r"tools is a dict with 'name', not a list of dicts"),
        ({"documents": ["x"]}, r"documents is a list of length 1, not a list of dicts"),
        ({"chat_template_kwargs": [1]}, r"chat_template_kwargs is a list of length 1, not a dict"),
        ({"chat_template_kwargs": {"tokenize": True}}, r"has 'tokenize', which is not a template variable"),
        ({"images": [[1, 2]]}, r"has 'images', which is not supported"),
    ],
)
def test_chat_rows_of_another_form_are_refused(change, message):
    with pytest.raises(HeadnbError, match=message) as caught:
        load_task([FORMS["plain"] | change])
    assert str(caught.value).isprintable()


def test_views_of_a_sample_show_its_full_text():
    task = load_task([FORMS["result"] | {"messages": [USER, THINKING, *PARTS[:1], CALL]}])
    (sample,) = task.samples
    for text in ("What is 40 + 2?", "Add them.", "weather", "Zürich"):
        assert text in sample_text(sample)
        assert text in "".join(sample_texts(task, 0, None))


def test_shuffled_answers_keep_what_belongs_to_their_prompts():
    rows = [FORMS["tools"], FORMS["plain"]]
    shuffled = load_task(rows).with_shuffled_answers()
    assert [sample.tools for sample in shuffled.samples] == [TOOLS, None]

"""Samples of lm-evaluation-harness tasks: the prompts and gold texts that the harness itself sends to a model."""

from __future__ import annotations

import sys
from pathlib import Path

import datasets
import pytest
from headnb import HeadnbError
from headnb.tasks import harness
from headnb.tasks.loading import Sample, load_task

lm_eval = pytest.importorskip("lm_eval")

FULL_INDEX = harness._manager

pytestmark = pytest.mark.usefixtures("nothing_outside")

ARC = {
    "question": ["What pulls a ball down?", "Which is a gas?"],
    "choices": [
        {"text": ["gravity", "light"], "label": ["A", "B"]},
        {"text": ["iron", "wood", "steam"], "label": ["1", "2", "3"]},
    ],
    "answerKey": ["A", "3"],
}
GSM8K = {"question": [f"{i} + 1?" for i in range(12)], "answer": [f"so #### {i + 1}" for i in range(12)]}
WINOGRANDE = {
    "sentence": ["The cup fell off the shelf because _ was steep."],
    "option1": ["the cup"],
    "option2": ["the shelf"],
    "answer": ["2"],
}
LAMBADA = {"text": ["she opened the door"]}


@pytest.fixture
def hub(monkeypatch):
    """Function that sets the splits of the data set that the harness loads; a small index of tasks."""
    folder = Path(lm_eval.__file__).parent / "tasks"
    monkeypatch.setattr(harness, "_manager", lambda: _manager(folder))

    def serve(**splits):
        loaded = datasets.DatasetDict({name: datasets.Dataset.from_dict(rows) for name, rows in splits.items()})
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)

    return serve


def _manager(folder):
    from lm_eval.tasks import TaskManager

    paths = [folder / name for name in ("arc", "gsm8k", "winogrande", "lambada", "humaneval", "squadv2", "wikitext")]
    return TaskManager(include_path=paths, include_defaults=False)


def test_multiple_choice_has_the_gold_choice(hub):
    hub(train=ARC, validation=ARC, test=ARC)
    task = load_task("lm_eval:arc_easy")
    assert task.samples == (
        Sample("Question: What pulls a ball down?\nAnswer:", " gravity"),
        Sample("Question: Which is a gas?\nAnswer:", " steam"),
    )
    assert (task.name, task.source, task.ids) == ("lm_eval:arc_easy", "lm-evaluation-harness (test)", (0, 1))


def test_the_samples_are_the_requests_of_the_harness(hub):
    hub(train=GSM8K, test=GSM8K)
    task = harness._manager().load("gsm8k")["tasks"]["gsm8k"]
    task.set_config("num_fewshot", 0)
    assert harness.is_harness_task(task)
    mine = load_task(task, n=12)
    task.build_all_requests()
    sent = {request.doc_id: request.arguments[0] for request in task.instances}
    assert {key: sample.prompt for key, sample in zip(mine.ids, mine.samples, strict=True)} == sent
    assert {sample.prompt: sample.completion for sample in mine.samples}["Question: 3 + 1?\nAnswer:"] == " so #### 4"


def test_few_shot_examples_are_those_of_the_task_and_depend_on_seed_and_row_only(hub):
    hub(train=GSM8K, test=GSM8K)
    whole, part = load_task("lm_eval:gsm8k"), load_task("lm_eval:gsm8k", n=4)
    assert whole.samples[0].prompt.count("Question: ") == 6  # five examples
    assert whole.samples[0].prompt.endswith("\n\nQuestion: 0 + 1?\nAnswer:")
    assert "\nAnswer: so #### " in whole.samples[0].prompt  # an example has the delimiter that the completion has
    assert [whole.samples[key] for key in part.ids] == list(part.samples)
    assert load_task("lm_eval:gsm8k", seed=1).samples[0] != whole.samples[0]


def test_a_training_sample_is_not_among_its_own_few_shot_examples(hub):
    hub(train=GSM8K, test=GSM8K)
    task = harness._manager().load("gsm8k")["tasks"]["gsm8k"]
    for sample in load_task(task, split="train").samples:
        question = sample.prompt.rpartition("\n\n")[2]
        assert sample.prompt.count(question) == 1
        assert sample.prompt.count("Question: ") == 6
    assert "sample" not in vars(task.sampler)  # the task is unchanged


def test_a_choice_inside_the_prompt(hub):
    hub(train=WINOGRANDE, validation=WINOGRANDE)
    task = load_task("lm_eval:winogrande")  # no test split: the harness uses the validation split
    assert task.samples == (Sample("The cup fell off the shelf because the shelf", " was steep."),)


def test_the_last_word_of_a_text(hub):
    hub(test=LAMBADA)
    assert load_task("lm_eval:lambada_openai").samples == (Sample("she opened the", " door"),)


def own_task(**config):
    from lm_eval.api.task import ConfigurableTask

    rows = datasets.Dataset.from_dict({"q": ["Two and two?", "Two and three?"], "a": [["4", "four"], ["5", "five"]]})
    settings = {"task": "sums", "custom_dataset": lambda: {"train": rows, "test": rows}, "test_split": "test"}
    return ConfigurableTask(config=settings | {"doc_to_text": "{{q}}", "training_split": "train"} | config)


@pytest.mark.parametrize(
    ("config", "prompt", "completion"),
    [
        ({"doc_to_target": "{{a[1]}}"}, "Two and two?", " four"),
        ({"doc_to_target": "a"}, "Two and two?", " 4"),  # several right answers
        ({"doc_to_target": "{{a[1]}}", "target_delimiter": "\n"}, "Two and two?", "\nfour"),
        ({"doc_to_target": "{{a[1]}}", "gen_prefix": "It is"}, "Two and two? It is", " four"),
        ({"doc_to_target": "{{a[1]}}", "gen_prefix": "It is "}, "Two and two? It is ", "four"),
        ({"doc_to_target": "{{a[1]}}", "description": "Add.\n"}, "Add.\nTwo and two?", " four"),
        ({"doc_to_target": 1, "doc_to_choice": ["even", "odd"]}, "Two and two?", " odd"),
        ({"doc_to_target": 1, "doc_to_choice": ["a", "b"], "output_type": "multiple_choice"}, "Two and two?", " b"),
        ({"doc_to_text": "", "doc_to_target": "{{q}}", "output_type": "loglikelihood_rolling"}, "", "Two and two?"),
    ],
)
def test_delimiters_and_prefixes_are_those_of_the_harness(config, prompt, completion):
    task = own_task(**config)
    assert load_task(task).samples[0] == Sample(prompt, completion)
    if task.OUTPUT_TYPE == "generate_until":  # the harness writes the same text for a few-shot example
        task.set_fewshot_seed(0)
        shown = task.fewshot_context(
            task.test_docs()[1], num_fewshot=2, gen_prefix=task.doc_to_prefix(task.test_docs()[1])
        )
        assert f"{prompt.removeprefix(task.config.description)}{completion}\n\n" in shown


def test_images_are_refused():
    with pytest.raises(HeadnbError, match="lm_eval:sums has images or audio"):
        load_task(own_task(doc_to_target="{{a[1]}}", doc_to_image=["q"]))


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("arc_esay", "test", r"unknown lm_eval task 'arc_esay'; did you mean 'arc_easy'"),
        ("lambada", "test", r"'lambada' is a group of lm_eval tasks; give one task, such as lambada_"),
        ("../x.yaml", "test", r"unknown lm_eval task"),
        ("lambada_openai", "train", r"lm_eval:lambada_openai has no split 'train'; it has test"),
        ("arc_challenge", "test", r"sample 1 has no prompt with a gold answer \(ValueError: '9' is not in list"),
    ],
)
def test_bad_names_are_one_line(hub, name, split, message):
    rows = ARC | {"answerKey": ["A", "9"]} if name == "arc_challenge" else LAMBADA
    hub(train=rows, validation=rows, test=rows)
    with pytest.raises(HeadnbError, match=message) as caught:
        load_task(f"lm_eval:{name}", split=split)
    assert "\n" not in str(caught.value)


def test_without_the_network_or_the_package_the_error_says_so(hub, monkeypatch):
    with pytest.raises(HeadnbError, match="cannot load lm_eval:arc_easy: no network"):
        load_task("lm_eval:arc_easy")
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(HeadnbError, match=r"pip install 'headnb\[harness\]'"):
        FULL_INDEX.__wrapped__()


@pytest.mark.long
def test_all_tasks_of_the_package_are_known():
    assert "arc_easy" in FULL_INDEX().all_subtasks

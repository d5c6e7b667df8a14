"""Word tasks: answers, independence of splits and seeds, and use without reasoning-gym."""

from __future__ import annotations

import re

import headnb
import pytest
from headnb.tasks.words import WORD_TASKS, WORDS

from blocked_imports import blocked


def listed(prompt: str) -> list[str]:
    """The words that a question lists."""
    listing = re.split(r"[:?]", prompt.removeprefix("Question: ").removesuffix("\nAnswer: "))[1]
    return re.findall(r"[a-z]+", listing)


ANSWERS = {
    "last_word": lambda words: words[-1],
    "capital_letters": lambda words: ", ".join(word.upper() for word in words),
    "last_word_in_capitals": lambda words: words[-1].upper(),
    "word_count": lambda words: str(len(words)),
    "longest_word": lambda words: max(words, key=len),
}


@pytest.mark.parametrize("name", WORD_TASKS)
def test_answers_follow_from_the_listed_words(name: str) -> None:
    for sample in headnb.load_task(name, n=200).samples:
        words = listed(sample.prompt)
        assert len(set(words)) == len(words)
        assert set(words) <= set(WORDS)
        assert sample.completion == ANSWERS[name](words)


def test_the_longest_word_is_longer_than_the_others() -> None:
    for sample in headnb.load_task("longest_word", n=200).samples:
        lengths = sorted(map(len, listed(sample.prompt)))
        assert lengths[-1] > lengths[-2]


SETTINGS = ({"split": "train"}, {"split": "test"}, {"split": "test", "seed": 1})


@pytest.mark.parametrize("name", WORD_TASKS)
def test_splits_and_seeds_have_other_samples_and_a_larger_task_contains_a_smaller_one(name: str) -> None:
    train, test, other = (headnb.load_task(name, **how, n=50).samples for how in SETTINGS)
    assert len(set(train) & set(test)) <= 1
    assert len(set(test) & set(other)) <= 1
    assert set(headnb.load_task(name, n=20).samples) < set(test)


def test_word_tasks_need_no_reasoning_gym() -> None:
    with blocked("reasoning_gym"):
        assert headnb.load_task("last_word", n=2).source == "headnb (test, seed 0)"

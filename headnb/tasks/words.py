"""Word tasks: questions about a few common nouns, which a small model learns in tens of updates.

They need no other package. `last_word_in_capitals` combines `last_word` and `capital_letters`; the other tasks have
similar questions about the same words.
"""

from __future__ import annotations

import random
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Question = tuple[str, str]  # question and answer

WORDS = tuple(
    """
    apple arm army baby back ball bank base bear bed bell bird boat body book bottle box boy branch bread bridge brother
    butter cake camera camp card cat chair cheese child church circle city clock cloud coat coffee corn cow cup daughter
    day desk doctor dog door dream dress driver duck ear earth egg engine eye face farm father field finger fire fish
    floor flower foot forest fork friend fruit garden gate girl glass goat gold grass group guitar hair hammer hand hat
    head heart hill home horse hospital hotel house island jacket key king kitchen knife lake lamp leaf leg letter lion
    machine map market meat milk mirror money monkey moon morning mother mountain mouse mouth music nail neck needle
    night nose ocean office oil onion orange paper park pencil person phone picture pig plane plant plate pocket potato
    queen rabbit radio rain ring river road rock roof room root rose salt sand school sea sheep ship shirt shoe shop
    sister sky snake snow soap son soup spoon star station stone store storm story street sugar summer sun table teacher
    tiger tooth tower town train tree truck uncle valley village voice wall watch water wheel wind window wing winter
    woman wood world yard
    """.split()  # noqa: SIM905  a list of two hundred quoted words is harder to read
)


class WordTask(NamedTuple):
    """One word task: its description, and the function that makes a question."""

    description: str
    question: Callable[[random.Random], Question]


def question_answers(name: str, n: int, seed: int) -> list[Question]:
    """The first n questions and answers of a word task; those of different seeds are independent."""
    rng = random.Random(seed)  # noqa: S311  not for secrets
    return [WORD_TASKS[name].question(rng) for _ in range(n)]


def _some_words(rng: random.Random, least: int = 3, most: int = 5) -> list[str]:
    return rng.sample(WORDS, rng.randint(least, most))


def _last_word(rng: random.Random) -> Question:
    words = _some_words(rng)
    return f"Write the last of these words: {', '.join(words)}", words[-1]


def _capital_letters(rng: random.Random) -> Question:
    text = ", ".join(_some_words(rng, 2, 3))
    return f"Write in capital letters: {text}", text.upper()


def _last_word_in_capitals(rng: random.Random) -> Question:
    words = _some_words(rng)
    return f"Write the last of these words in capital letters: {', '.join(words)}", words[-1].upper()


def _word_count(rng: random.Random) -> Question:
    words = _some_words(rng)
    return f"How many words are these? {', '.join(words)}", str(len(words))


def _longest_word(rng: random.Random) -> Question:
    words = _some_words(rng)
    longest = max(words, key=len)
    if [len(word) for word in words].count(len(longest)) > 1:
        return _longest_word(rng)
    return f"Write the longest of these words: {', '.join(words)}", longest


WORD_TASKS: Mapping[str, WordTask] = MappingProxyType(
    {
        "last_word": WordTask("the last of several words", _last_word),
        "capital_letters": WordTask("two or three words in capital letters", _capital_letters),
        "last_word_in_capitals": WordTask("the last of several words in capital letters", _last_word_in_capitals),
        "word_count": WordTask("the number of words", _word_count),
        "longest_word": WordTask("the longest of several words", _longest_word),
    }
)

"""TF-IDF vectors of texts: word counts with higher weights of rare words (Salton and Buckley 1988)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headnb.stats.descriptive import Array

WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TfIdf:
    """The words of a collection of n texts.

    Attributes:
        columns: word -> its column.
        idf: (words), 1 + ln((1 + n) / (1 + texts with the word)); at least 1, so that every word counts.
    """

    columns: dict[str, int]
    idf: Array

    @classmethod
    def of(cls, texts: Iterable[str]) -> TfIdf:
        """Count the words of these texts, reading each text once."""
        texts_with: Counter[str] = Counter()
        n = 0
        for text in texts:
            texts_with.update(set(split_words(text)))
            n += 1
        counts = np.fromiter(texts_with.values(), np.float64, len(texts_with))
        return cls({word: column for column, word in enumerate(texts_with)}, 1 + np.log((1 + n) / (1 + counts)))

    def vectors(self, texts: Sequence[str]) -> sparse.csr_array:
        """(texts, words): word counts times idf, each row of length 1.

        Words that are not in the collection are ignored. A text without words of the collection is a row of zeros.
        """
        counted = [Counter(word for word in split_words(text) if word in self.columns) for text in texts]
        starts = np.cumsum([0, *map(len, counted)])
        columns = np.array([self.columns[word] for counts in counted for word in counts], np.int64)
        weights = np.array([n for counts in counted for n in counts.values()], np.float64) * self.idf[columns]
        rows = np.repeat(np.arange(len(counted)), np.diff(starts))
        length = np.sqrt(np.bincount(rows, weights**2, minlength=len(counted)))
        return sparse.csr_array((weights / length[rows], columns, starts), shape=(len(counted), len(self.columns)))


def split_words(text: str) -> list[str]:
    """Split text into lower-case words of letters, digits and underscores."""
    return WORD.findall(text.lower())

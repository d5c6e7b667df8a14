"""Random encoded samples, and their loss computed directly from the logits."""

from __future__ import annotations

import numpy as np
import torch
from headnb.engine.tokenization import EncodedSample
from headnb.tasks.row_values import IGNORED
from torch.nn import functional


def random_samples(lengths=(6, 11, 8, 13, 7), vocabulary=60, answer=0.5):
    random = np.random.default_rng(1)
    ids = [random.integers(1, vocabulary, length) for length in lengths]
    return [EncodedSample(row, np.where(np.arange(len(row)) < len(row) * (1 - answer), IGNORED, row)) for row in ids]


def token_task(samples):
    return [{"input_ids": sample.input_ids.tolist(), "labels": sample.labels.tolist()} for sample in samples]


def mean_loss(model, sample):
    ids, labels = torch.tensor(sample.input_ids), torch.tensor(sample.labels)
    with torch.no_grad():
        return functional.cross_entropy(model(ids[None]).logits[0, :-1], labels[1:], ignore_index=IGNORED)

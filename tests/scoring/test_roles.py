"""Head roles equal their definitions: heads built by hand for one role each, and loops over attention matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from headnb import HeadnbError, head_roles, load_model
from headnb.engine import attention_weights
from headnb.engine.generation import Continuation
from headnb.scoring import copying
from headnb.scoring.roles import THRESHOLDS, repeated_tokens, role_weights
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel

from architectures import build, hybrid_model
from explicit_attention import matrices, with_explicit_attention
from model_state import state
from random_samples import random_samples, token_task
from tiny import framing_tokenizer, tiny_model, tiny_tokenizer

GENERATED = ("induction", "previous-token", "duplicate-token", "sink")
LENGTH, SEQUENCES = 12, 2


def scores_by_loops(A, allowed, prefix, length):
    """The four scores (H,) of one layer by explicit loops over the queries; A (B, H, T, T), allowed (T, T)."""
    tokens = prefix + 2 * length
    found = {name: np.full(A.shape[1], np.nan) for name in GENERATED}
    for head in range(A.shape[1]):
        values = {name: [] for name in GENERATED}
        for a in A[:, head]:
            for query in range(prefix + length, tokens):
                back = {"induction": length - 1, "previous-token": 1, "duplicate-token": length}
                for name, distance in back.items():
                    if allowed[query, query - distance]:
                        values[name].append(a[query, query - distance])
            for query in range(min(64, tokens)):
                if allowed[query, 0]:
                    values["sink"].append(a[query, 0] + 1 - sum(a[query, key] for key in range(tokens)))
        for name, of_role in values.items():
            found[name][head] = np.mean(of_role) if of_role else np.nan
    return found


def allowed_keys(window, tokens):
    distance = np.arange(tokens)[:, None] - np.arange(tokens)
    return (distance >= 0) & (distance < (window or tokens))


def windows(model, layers):
    """The window of each layer, or None."""
    kinds = getattr(model.config, "layer_types", None) or ["full_attention"] * layers
    everywhere = model.config.model_type == "mistral"
    return [model.config.sliding_window if everywhere or kind == "sliding_attention" else None for kind in kinds]


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "gemma2", "gpt_oss", "deepseek_v3"])
def test_scores_are_loops_over_the_attention_matrices(name):
    model = build(name, torch.float32)
    roles = head_roles(model, None, sequences=SEQUENCES, length=LENGTH)
    ids = repeated_tokens(model, None, SEQUENCES, LENGTH, seed=0).ids
    explicit = with_explicit_attention(build(name, torch.float32))
    read = [matrices(explicit, row) for row in ids]
    for layer, window in enumerate(windows(model, len(read[0]))):
        A = np.stack([of_sequence[layer].A.numpy() for of_sequence in read]).astype(np.float64)
        expected = scores_by_loops(A, allowed_keys(window, ids.shape[1]), 0, LENGTH)
        for role, of_heads in expected.items():
            found = roles.score.sel(role=role)[layer]
            np.testing.assert_allclose(found, of_heads, atol=2e-6, err_msg=f"{role} {layer}")


@pytest.mark.parametrize("name", ["bloom", "gptj"])
def test_architectures_with_their_own_attention_code(name):
    model = build(name, torch.float32, attn_implementation="eager")
    ids = repeated_tokens(model, None, SEQUENCES, LENGTH, seed=0).ids
    with torch.no_grad():
        read = model(torch.tensor(ids), output_attentions=True, use_cache=False).attentions
    roles = head_roles(model, None, sequences=SEQUENCES, length=LENGTH)
    for layer, A in enumerate(read):
        expected = scores_by_loops(A.double().numpy(), allowed_keys(None, ids.shape[1]), 0, LENGTH)
        for role, of_heads in expected.items():
            np.testing.assert_allclose(roles.score.sel(role=role)[layer], of_heads, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_window_shorter_than_the_distance_is_nan_and_only_there(dtype):
    model = build("gemma2", dtype)  # layers 0 and 2 have a window of 5 tokens
    score = head_roles(model, None, sequences=1, length=LENGTH).score
    for role, missing in (("induction", True), ("duplicate-token", True), ("previous-token", False), ("sink", False)):
        assert score.sel(role=role).isnull().all("head").values.tolist() == [missing, False, missing]


def positional_model(length):
    """A gpt2 with one layer whose heads attend only by position: induction, previous, duplicate, and first token."""
    tokens, width = 2 * length + 1, 64
    config = GPT2Config(n_embd=4 * width, n_layer=1, n_head=4, n_positions=width, vocab_size=320)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.transformer.wpe.weight[:, :width] = torch.eye(width)  # one-hot positions
        for norm in (model.transformer.h[0].ln_1, model.transformer.ln_f):
            norm.weight.fill_(1)
        query, key, _ = model.transformer.h[0].attn.c_attn.weight.split(4 * width, 1)
        for head, distance in enumerate((length - 1, 1, length)):
            for position in range(distance, tokens):
                query[position, head * width + position - distance] = 30
            key[range(width), range(head * width, (head + 1) * width)] = 1
        model.transformer.h[0].attn.c_attn.bias[3 * width] = 30  # the same query everywhere
        key[0, 3 * width] = 1
    return model


def test_heads_built_for_one_role_have_it_exactly():
    """Each head attends to one position alone, so its own score is 1 and the other roles' scores are 0."""
    length = 16
    made = framing_tokenizer()
    score = head_roles(positional_model(length), made, sequences=2, length=length).score[:, 0]
    ones = {"induction": 0, "previous-token": 1, "duplicate-token": 2, "sink": 3}
    for role in ("induction", "previous-token", "duplicate-token"):
        np.testing.assert_allclose(score.sel(role=role), np.arange(4) == ones[role], atol=1e-6)
    assert float(score.sel(role="sink")[3]) == pytest.approx(1, abs=1e-6)


def test_a_removed_sink_column_counts_as_sink():
    weights = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    weights[0, 0, :, 0] = 0.25  # 0.75 of the attention is on the removed column
    weights[0, 1] = torch.eye(8)
    values = role_weights(weights, torch.ones(1, 1, 8, 8, dtype=torch.bool).tril(), 0, 0, 4)
    assert values["sink"].mean((0, 2)).tolist() == [1, 1 / 8]


def test_rows_in_blocks_give_the_same_scores(monkeypatch):
    whole = head_roles(tiny_model(), None, sequences=3, length=20)
    monkeypatch.setattr(attention_weights, "MAX_WEIGHT_ELEMENTS", 7 * 3 * 4 * 40)
    xr.testing.assert_allclose(head_roles(tiny_model(), None, sequences=3, length=20).score, whole.score, atol=1e-6)


def test_result_is_labelled_repeatable_and_leaves_the_model_unchanged():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    before = state(model)
    roles = head_roles(model, tokenizer)
    assert state(model) == before
    assert roles.score.dims == ("role", "layer", "head")
    assert roles.role.values.tolist() == list(GENERATED)
    assert roles.threshold.values.tolist() == [THRESHOLDS[role] for role in GENERATED]
    assert roles.attrs["units"] == "attention weight"
    assert roles.attrs["begins_with"] == ""
    assert head_roles(model, framing_tokenizer()).attrs["begins_with"] == "<s>"
    xr.testing.assert_identical(head_roles(model, tokenizer).score, roles.score)
    assert not head_roles(model, tokenizer, seed=1).score.equals(roles.score)
    table = roles.heads.top(2)
    assert table["role"].tolist() == [role for role in GENERATED for _ in range(2)]
    strongest = roles.score.sel(role="induction").argmax(("layer", "head"))
    assert table.index[0] == f"L{int(strongest['layer'])}H{int(strongest['head'])}"
    assert len(roles.heads.grid().payload["panels"]) == len(GENERATED)


def test_sequences_repeat_different_ordinary_tokens_after_the_tokenizers_prefix():
    tokenizer = framing_tokenizer()
    made = repeated_tokens(tiny_model(), tokenizer, 3, 20, seed=0)
    assert made.prefix == [tokenizer.bos_token_id]
    for row in made.ids:
        first, second = row[1:21], row[21:]
        assert (first == second).all()
        assert len(set(first)) == 20
        assert not set(first) & set(tokenizer.all_special_ids)


def test_layers_without_softmax_heads_are_nan():
    score = head_roles(hybrid_model(), None, sequences=1, length=8).score
    assert score.isnull().all(("role", "head")).values.tolist() == [True, False, True, False]


def test_a_model_with_an_adapter_has_the_roles_of_the_merged_weights():
    wrapped = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    score = head_roles(wrapped, None).score
    assert not np.allclose(score, head_roles(tiny_model(), None).score, atol=1e-3)
    xr.testing.assert_allclose(head_roles(wrapped.merge_and_unload(), None).score, score, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 300}, "length=300 needs 600 tokens, more than the model's context of 512; use length=256"),
        ({"length": 3}, "at least 1 sequence of 4 tokens"),
        ({"sequences": 0}, "at least 1 sequence"),
        ({"copy": "retreival"}, "did you mean 'retrieval'"),
        ({"task": token_task(random_samples()), "copy": "retrieval"}, "needs the model's tokenizer"),
    ],
)
def test_errors_say_what_to_do(options, message):
    with pytest.raises(HeadnbError, match=message.replace("(", r"\(")):
        head_roles(tiny_model(), None, **options)


def test_too_small_a_vocabulary_and_encoders_are_refused():
    with pytest.raises(HeadnbError, match="needs as many different tokens"):
        head_roles(tiny_model(vocabulary=20), None, length=30)
    bert = BertLMHeadModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=64))
    with pytest.raises(HeadnbError, match="is an encoder"):
        head_roles(bert, None)


def copied_by_loops(A, ids, labels, window=None):
    """Mean over the copied answer tokens of the weight on the same tokens in the prompt; NaN if none is visible."""
    prompt = next(position for position, label in enumerate(labels) if label != -100)
    values = []
    for position in range(max(prompt, 1), len(ids)):
        sources = [key for key in range(prompt) if ids[key] == ids[position]]
        if sources and any(window is None or position - 1 - key < window for key in sources):
            values.append(sum(A[position - 1, key] for key in sources))
    return np.mean(values) if values else np.nan


@pytest.mark.parametrize("name", ["llama", "gpt_oss"])
def test_copy_score_is_a_loop_over_answer_tokens_with_padding(name):
    samples = random_samples((30, 21, 25), vocabulary=8)
    roles = head_roles(build(name, torch.float32), None, token_task(samples), sequences=1, length=8)
    assert roles.attrs["copy_samples"] == 3
    explicit = with_explicit_attention(build(name, torch.float32))
    read = [matrices(explicit, sample.input_ids) for sample in samples]
    for layer, window in enumerate(windows(explicit, len(read[0]))):
        for head in range(4):
            of_samples = [
                copied_by_loops(found[layer].A[head].double().numpy(), sample.input_ids, sample.labels, window)
                for found, sample in zip(read, samples, strict=True)
            ]
            expected = np.nanmean(of_samples)
            assert float(roles.score.sel(role="copy")[layer, head]) == pytest.approx(expected, abs=2e-6)


def test_a_task_without_a_copied_token_is_an_error():
    task = [{"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}]
    with pytest.raises(HeadnbError, match="no answer token of this task occurs in its prompt"):
        head_roles(tiny_model(), None, task)
    with pytest.raises(HeadnbError, match="occurs verbatim"):
        head_roles(tiny_model(), tiny_tokenizer(), [("2 + 3 =", " 5")], copy="retrieval")


def test_special_tokens_are_not_copied():
    (sample,) = random_samples((12,), vocabulary=4)
    steps = copying.copy_steps(sample, [3])
    assert set(steps.tokens) == set(sample.labels[sample.labels != -100]) - {3}


def test_retrieval_score_is_the_share_of_needle_tokens_that_the_largest_weight_copies(monkeypatch):
    """The generation is given; the attention is that of the model, read from explicit matrices."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompt, answer = [20, 30, 31, 32, 33, 40, 30, 41], [30, 31, 32, 33]
    written = [30, 32, 33, 50]  # 31 is missing: 3 of 4 tokens are recalled
    task = [{"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}]

    def generate(_, __, prompts, most):
        assert most == len(answer)
        return [copying_row(np.asarray(row), written) for row in prompts]

    monkeypatch.setattr(copying, "continue_greedily", generate)
    roles = head_roles(model, tokenizer, task, copy="retrieval", length=16)
    assert roles.attrs["copy_samples"] == 1
    ids = prompt + written
    read = matrices(with_explicit_attention(tiny_model()), ids)
    for layer, found in read.items():
        for head, A in enumerate(found.A):
            copied = set()
            for position in range(len(prompt), len(ids)):
                largest = int(A[position - 1].argmax())
                if 1 <= largest <= 4 and ids[largest] == ids[position]:
                    copied.add(ids[position])
            assert float(roles.score.sel(role="retrieval")[layer, head]) == pytest.approx(len(copied) / 4)


def copying_row(prompt, tokens):
    return Continuation(prompt, len(tokens), list(tokens))


def test_retrieval_score_is_nan_where_the_model_fails(monkeypatch):
    def generate(_, __, prompts, most):
        return [copying_row(np.asarray(row), [60] * most) for row in prompts]

    monkeypatch.setattr(copying, "continue_greedily", generate)
    task = [{"input_ids": [20, 30, 31, 30, 31], "labels": [-100] * 3 + [30, 31]}]
    roles = head_roles(tiny_model(), tiny_tokenizer(), task, copy="retrieval")
    assert roles.attrs["copy_samples"] == 0
    assert roles.score.sel(role="retrieval").isnull().all()


def test_a_retrieval_score_does_not_depend_on_the_other_samples(monkeypatch):
    """Each text is as long as its own needle, although the texts of a batch are generated together."""
    texts = {20: [30, 7, 31, 30], 21: [40, 41, 42, 43]}

    def generate(_, __, prompts, most):
        return [copying_row(np.asarray(row), texts[int(row[0])][:most]) for row in prompts]

    monkeypatch.setattr(copying, "continue_greedily", generate)
    rows = [[20, 30, 31, 9, 30, 31], [21, 40, 41, 42, 43, 40, 41, 42, 43]]
    samples = [
        {"input_ids": row, "labels": [-100] * (len(row) - size) + row[-size:]}
        for row, size in zip(rows, (2, 4), strict=True)
    ]
    alone, other, both = (
        head_roles(tiny_model(), tiny_tokenizer(), task, copy="retrieval").score.sel(role="retrieval")
        for task in (samples[:1], samples[1:], samples)
    )
    assert alone.isnull().all()  # one of the two tokens that the first needle has: not more than half
    np.testing.assert_array_equal(both, other)


def test_largest_weight_and_share_on_hand_made_matrices():
    weights = torch.tensor([[[0.1, 0.7, 0.2]], [[0.6, 0.3, 0.1]]])  # two steps, one head
    sources = torch.tensor([[[False, True, False]], [[False, True, False]]])
    assert copying.copied_weight(weights, sources)[:, 0].tolist() == pytest.approx([0.7, 0.3])
    hits = copying.largest_is_source(weights, sources)
    assert hits[:, 0].tolist() == [1, 0]
    share = copying.copied_share(hits[:, None].numpy(), np.array([8, 9]), np.array([8, 9, 10]))
    assert share[0, 0] == pytest.approx(1 / 3)


@pytest.mark.long
def test_smollm2_has_induction_heads_that_copy():
    model, tokenizer = load_model("smollm2-135m")
    names = [("Anna", "blue river"), ("Bob", "green mountain"), ("Carl", "red table")]
    question = "The code of {0} is {1}. What is the code of {0}? The code is"
    task = [(question.format(name, code), f" {code}.") for name, code in names]
    roles = head_roles(model, tokenizer, task)
    counts = (roles.score > roles.threshold).sum(("layer", "head"))
    assert counts.sel(role="induction") >= 3
    assert counts.sel(role="previous-token") >= 3
    copying_heads, inducing = (roles.sel(role=[role]).heads.top(5).index for role in ("copy", "induction"))
    assert set(copying_heads) & set(inducing)

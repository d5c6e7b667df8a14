"""Tuning of selected heads: the slices equal an independent loop, and all other weights stay bitwise unchanged."""

from __future__ import annotations

import itertools

import headnb
import numpy as np
import pytest
import torch
from headnb.engine.hooks import find_heads, head_outputs
from headnb.engine.model_contexts import frozen
from headnb.errors import HeadnbError
from headnb.tuning.head_slices import head_slices
from headnb.tuning.head_training import SliceTraining
from headnb.tuning.training import TuningInterrupted
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from torch.nn import functional

from architectures import build
from short_trainings import same_values, short_finetuning, state_of, values_of
from tiny import tiny_model, tiny_tokenizer
from trainers import PAIRS, rows

HEADS = ["L0H1", "L1H2", "L1H3"]  # in layer 1, all heads of the second key/value group
SIZE = 8
SEPARATE = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi", "olmo2", "cohere", "glm4", "opt", "gptj",
            "gpt_neo", "biogpt", "xglm", "gpt_oss", "starcoder2", "modernbert-decoder"]  # fmt: skip
FUSED = ["gpt2", "phi3", "gpt_neox", "bloom", "mpt", "codegen", "falcon grouped alibi", "deepseek_v3"]


def slice_of(head):
    return slice(head * SIZE, (head + 1) * SIZE)


def may_move(model):
    """Parameter name -> mask of the values that belong to HEADS, written out explicitly."""
    masks = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in model.named_parameters()}
    for layer, head in ((0, 1), (1, 2), (1, 3)):
        attention = f"model.layers.{layer}.self_attn"
        masks[f"{attention}.q_proj.weight"][slice_of(head)] = True
        masks[f"{attention}.o_proj.weight"][:, slice_of(head)] = True
        if f"{attention}.q_proj.bias" in masks:
            masks[f"{attention}.q_proj.bias"][slice_of(head)] = True
    for name in ("k_proj", "v_proj"):
        masks[f"model.layers.1.self_attn.{name}.weight"][slice_of(1)] = True
        if f"model.layers.1.self_attn.{name}.bias" in masks:
            masks[f"model.layers.1.self_attn.{name}.bias"][slice_of(1)] = True
    return masks


def moved(before, model):
    return {name: before[name] != value for name, value in model.named_parameters()}


@pytest.mark.parametrize(
    ("optim", "checkpointing"), [("adamw_torch", False), ("adamw_torch", True), ("adafactor", False)]
)
def test_other_weights_keep_every_bit_under_weight_decay(optim, checkpointing):
    model = tiny_model(attention_bias=True)
    values, state = values_of(model), state_of(model)
    result = short_finetuning(
        model, inplace=True, heads=HEADS, optim=optim, weight_decay=0.3, gradient_checkpointing=checkpointing
    )
    masks = may_move(model)
    for name, changed in moved(values, model).items():
        assert not changed[~masks[name]].any(), name
        if masks[name].any() and not name.endswith("k_proj.bias"):  # softmax is invariant to a bias of all keys
            assert changed[masks[name]].float().mean() > 0.9, name
    assert state_of(model) == state
    assert result.trained_parameters == sum(int(mask.sum()) for mask in masks.values())
    assert result.study.attrs["kind_of_tuning"] == "heads"
    assert result.study.attrs["heads"] == ",".join(HEADS)
    assert result.study.train_loss[-1] < result.study.train_loss[0]


def test_without_weight_decay_held_still_weights_have_no_moments(monkeypatch):
    """Gradients outside the slices are zero before the optimizer step; restoring the weights is not enough."""
    model, seen = tiny_model(), []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        done = step(self, *args, **kwargs)
        seen.append([(weight, self.state[weight]["exp_avg"].clone()) for weight in self.state])
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    short_finetuning(model, inplace=True, heads=HEADS)
    masks = {id(weight): mask for weight, mask in zip(model.parameters(), may_move(model).values(), strict=True)}
    assert len(seen) == 4
    for weight, moment in itertools.chain(*seen):
        assert not moment[~masks[id(weight)]].any()
        assert moment[masks[id(weight)]].all()


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_one_step_equals_a_loop_of_masked_gradient_descent(clip):
    rate, decay = 0.1, 0.3
    model, by_hand = tiny_model(dtype=torch.float64), tiny_model(dtype=torch.float64)
    pairs = PAIRS[:4]
    headnb.finetune(
        model, tiny_tokenizer(), pairs, steps=1, every=1, batch_size=4, learning_rate=rate, inplace=True, heads=HEADS,
        optim="sgd", weight_decay=decay, max_grad_norm=clip, lr_scheduler_type="constant",
    )  # fmt: skip
    answers = 0
    loss = torch.zeros((), dtype=torch.float64)
    for row in rows(pairs):  # the trainer's loss is the mean over all answer tokens of the batch
        ids, mask = torch.tensor(row["input_ids"]), torch.tensor(row["completion_mask"]).bool()
        logits = by_hand(ids[None], use_cache=False).logits[0, :-1][mask[1:]]
        loss = loss + functional.cross_entropy(logits, ids[1:][mask[1:]], reduction="sum")
        answers += int(mask[1:].sum())
    (loss / answers).backward()
    masks = may_move(by_hand)
    gradients = {name: weight.grad * masks[name] for name, weight in by_hand.named_parameters()}
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    scale = min(1.0, clip / float(norm)) if clip else 1.0
    assert (scale < 1) == bool(clip)
    for (name, found), (_, before) in zip(model.named_parameters(), by_hand.named_parameters(), strict=True):
        expected = before.detach() - rate * (gradients[name] * scale + decay * before.detach() * masks[name])
        torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(found[~masks[name]], before[~masks[name]])


@pytest.mark.parametrize("options", [{}, {"peft_config": LoraConfig(r=3, lora_alpha=5, lora_dropout=0.1)}])
def test_the_adapter_is_zero_outside_the_slices_and_merges_to_the_same_logits(tmp_path, options):
    model = tiny_model()
    values, state = values_of(model), state_of(model)
    result = short_finetuning(model, heads=HEADS, weight_decay=0.3, learning_rate=3e-2, output_dir=tmp_path, **options)
    assert same_values(values, model)
    assert state_of(model) == state
    masks = may_move(model)
    rank = 3 if options else 16
    stored = load_file(result.adapter / "adapter_model.safetensors")
    trained = 0
    for name, factor in stored.items():
        projection, _, which = name.removeprefix("base_model.model.").rpartition(".lora_")
        mask = masks[f"{projection}.weight"]
        outputs, inputs = mask.any(1), mask.any(0)
        if which == "B.weight":
            assert not factor[~outputs].any()
            assert factor[outputs].all()
            trained += rank * int(outputs.sum())
        else:
            assert not factor[:, ~inputs].any()
            assert factor[:, inputs].all()
            trained += rank * int(inputs.sum())
    assert len(stored) == 2 * (2 + 4)
    assert result.trained_parameters == trained

    ids = torch.arange(3, 40)[None]
    loaded = PeftModel.from_pretrained(tiny_model(), str(result.adapter)).eval()
    logits = loaded(ids).logits.detach()
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, logits, rtol=1e-4, atol=1e-4)
    assert (logits - model(ids).logits).abs().max() > 1e-2
    for name, changed in moved(values, merged).items():
        assert not changed[~masks[name]].any(), name
        assert changed[masks[name]].all() or not masks[name].any(), name
    with result.applied(model) as tuned:
        torch.testing.assert_close(tuned(ids).logits, logits)


def test_resumed_tuning_of_heads_equals_one_run(tmp_path):
    whole, parts = tiny_model(), tiny_model()
    options = {"inplace": True, "heads": HEADS, "weight_decay": 0.3, "lr_scheduler_type": "constant", "every": 2}
    short_finetuning(whole, steps=4, output_dir=tmp_path / "whole", **options)

    def stop(progress):
        if progress.step == 3:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        short_finetuning(parts, steps=4, output_dir=tmp_path / "parts", on_progress=stop, **options)
    parts = tiny_model()
    short_finetuning(parts, steps=4, output_dir=tmp_path / "parts", resume=True, **options)
    assert same_values(values_of(whole), parts)
    with pytest.raises(HeadnbError, match="heads 'L0H1,L1H2,L1H3'"):
        short_finetuning(parts, steps=4, output_dir=tmp_path / "parts", resume=True, **(options | {"heads": "L0H1"}))


def test_an_interrupt_right_after_an_update_leaves_other_weights_unchanged(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    model = tiny_model()
    before = values_of(model)
    monkeypatch.setattr(SliceTraining, "on_optimizer_step", interrupted)
    with pytest.raises(TuningInterrupted):
        short_finetuning(model, inplace=True, heads="L0H1", weight_decay=0.3)
    query = "model.layers.0.self_attn.q_proj.weight"
    moved = (model.get_parameter(query) != before[query]).any(1)
    size = model.config.head_dim
    assert moved[size : 2 * size].any()
    assert not moved[:size].any()
    assert not moved[2 * size :].any()


@pytest.mark.parametrize("name", SEPARATE)
def test_a_slice_is_what_its_heads_are_computed_from(name):
    """A change of query rows affects only their head's output; of key and value rows, only the heads of the group."""
    model = build(name, torch.float32)
    layout = find_heads(model)
    groups = layout.kv_heads
    shared = layout.heads[0] // groups
    chosen = [f"L0H{head}" for head in range(shared, 2 * shared)]
    found = {part.name.rpartition(".")[2]: part for part in head_slices(model, layout, chosen)}
    assert set(found) > {"q_proj", "k_proj", "v_proj"}
    heads = set(range(shared, 2 * shared))
    before, projected = outputs_of(model)
    for part in ("q_proj", "k_proj", "v_proj"):
        slice_ = found[part]
        weight = model.get_submodule(slice_.name).weight
        original = weight.detach().clone()
        with torch.no_grad():
            weight[slice_.features] *= -1.5
        after, _ = outputs_of(model)
        with torch.no_grad():
            weight.copy_(original)
        changed = {head for head in range(layout.heads[0]) if (after - before)[..., head, :].abs().max() > 1e-5}
        normed_together = name == "olmo2" and part != "v_proj"  # its norm covers the queries of all heads
        assert heads <= changed
        assert normed_together or changed == heads, part
    (output,) = (part for part in found.values() if not part.of_outputs)
    torch.testing.assert_close(projected[..., output.features], before[:, :, sorted(heads)].flatten(2))


def outputs_of(model):
    """Layer 0: the heads' outputs (B, T, H, D), and the input of the output projection (B, T, H D)."""
    seen = {}

    def see(layer, outputs):
        seen[layer] = outputs.detach().clone()
        return outputs

    (part,) = (part for part in head_slices(model, find_heads(model), ["L0H0"]) if not part.of_outputs)
    hook = model.get_submodule(part.name).register_forward_pre_hook(lambda _, args: seen.update(given=args[0].detach()))
    with torch.no_grad(), frozen(model), head_outputs(model, see):
        model(torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]]), use_cache=False)
    hook.remove()
    return seen[0], seen["given"]


@pytest.mark.parametrize("name", FUSED)
def test_heads_in_fused_projections_are_refused_in_one_line(name):
    model = build(name, torch.float32)
    with pytest.raises(
        HeadnbError, match=r"^the heads of \w+ cannot be tuned separately: .* q_proj, k_proj.*llama, .*$"
    ):
        head_slices(model, find_heads(model), ["L0H0"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": "L7H0"}, "layers L0 to L1"),
        ({"heads": []}, "no heads given"),
        ({"heads": HEADS, "peft_config": LoraConfig(use_dora=True)}, "this one sets use_dora"),
        ({"heads": HEADS, "peft_config": LoraConfig(bias="all")}, "this one sets bias"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_is_written(model, tmp_path, options, message):
    with pytest.raises(HeadnbError, match=message):
        short_finetuning(model, output_dir=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_all_parameters_are_counted_without_a_selection(model):
    result = short_finetuning(model, inplace=True, steps=1)
    assert result.trained_parameters == sum(weight.numel() for weight in model.parameters())
    assert np.isfinite(result.study.train_loss).all()

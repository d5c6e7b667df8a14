"""Checks of a model's weights before it is scored."""

from __future__ import annotations

import pytest
from headnb import HeadnbError
from headnb.models.loading import check_weights


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_unsound_weights_are_named_with_their_layer(model, value):
    check_weights(model)
    model.get_parameter("model.layers.1.mlp.up_proj.weight").data[3, 5] = value
    model.get_parameter("lm_head.weight").data[0, 0] = value
    with pytest.raises(HeadnbError, match=r"model\.layers\.1\.mlp\.up_proj\.weight \(layer 1\), lm_head\.weight$"):
        check_weights(model)


def test_huge_but_finite_weights_are_sound(model):
    model.get_parameter("lm_head.weight").data.fill_(3e38)
    assert model.lm_head.weight.sum().isinf()
    assert check_weights(model) is None

"""What a module must be to be a backbone, whatever the size of its outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from chibit.core.errors import InputError
from chibit.models.backbone import Backbone
from chibit.models.gpt import GPT, GPTConfig
from chibit.models.huggingface import HuggingFaceBackbone
from chibit.models.own_backbone import OwnBackbone


class Scaled(nn.Module):
    """Sums of the tokens before, or means of all of them, in some unit."""

    width = 16

    def __init__(self, unit: float, *, ahead: bool = False) -> None:
        super().__init__()
        self.unit, self.ahead = unit, ahead

    def forward(self, x: Tensor) -> Tensor:
        return self.unit * (x + x.mean(1, keepdim=True) if self.ahead else x.cumsum(1))


class Property(Scaled):
    @property
    def width(self) -> int:
        return 16


class Raising(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        raise IndexError("no such place")


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_looking_ahead_is_noticed_in_any_unit(unit: float) -> None:
    assert OwnBackbone(Scaled(unit)).width == 16
    with pytest.raises(InputError, match="Scaled looks at later tokens"):
        OwnBackbone(Scaled(unit, ahead=True))


def test_padding_is_seen_by_no_token_wherever_it_is() -> None:
    backbone = OwnBackbone(Scaled(1.0))
    tokens, padding = torch.randn(2, 5, 16), torch.full((2, 3, 16), 9.0)
    mask = torch.tensor([[False] * 3 + [True] * 5] * 2)
    left = backbone(torch.cat([padding, tokens], dim=1), mask)[:, 3:]
    torch.testing.assert_close(left, backbone(tokens))
    middle = torch.cat([tokens[:, :2], padding, tokens[:, 2:]], dim=1)
    mask = torch.tensor([[True] * 2 + [False] * 3 + [True] * 3] * 2)
    torch.testing.assert_close(backbone(middle, mask)[mask].view(2, 5, 16), backbone(tokens))


def test_every_kind_is_a_backbone_and_somebodys_own_keeps_its_dropout() -> None:
    body = Scaled(1.0)
    body.drop = nn.Dropout(0.5)
    backbone, gpt = OwnBackbone(body), GPT(GPTConfig())
    backbone.set_dropout(attn_dropout=0.1, resid_dropout=0.1, embd_dropout=0.1)
    assert body.drop.p == 0.5
    assert backbone.layers is backbone and gpt.layers is gpt.blocks
    assert all(issubclass(kind, Backbone) for kind in (GPT, HuggingFaceBackbone, OwnBackbone))


def test_a_width_may_be_a_property() -> None:
    assert OwnBackbone(Property(1.0)).width == 16


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (Scaled(float("nan")), "gives values that are not finite"),
        (Raising(1.0), r"does not take \(2, 7, 16\) \(no such place\)"),
    ],
)
def test_what_cannot_be_trained_is_refused_for_what_it_is(body: nn.Module, said: str) -> None:
    with pytest.raises(InputError, match=said):
        OwnBackbone(body)

import copy

import pytest
import torch
from torch import nn

from chibit.core.optimizers import restore_optimizer


def trained(kind=torch.optim.AdamW, **options):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = kind(model.parameters(), lr=0.1, **options)
    for _ in range(3):
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    ("kind", "options"), [(torch.optim.AdamW, {"fused": True}), (torch.optim.SGD, {"momentum": 0.9})]
)
def test_a_run_goes_on_to_the_bit_with_its_own_step_size(kind, options):
    model, optimizer = trained(kind, **options)
    saved, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    other = nn.Linear(3, 2)
    other.load_state_dict(weights)
    again = kind(other.parameters(), lr=0.1, **options)
    saved["param_groups"][0]["lr"] = "not a number"
    restore_optimizer(again, saved)
    for one, steps in ((model, optimizer), (other, again)):
        steps.zero_grad()
        one(torch.ones(4, 3)).square().sum().backward()
        steps.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "damage",
    [
        lambda saved: saved["state"][0].pop("exp_avg_sq"),
        lambda saved: saved["state"][1].update(more=torch.zeros(2)),
        lambda saved: saved["state"][0].update(exp_avg=torch.zeros(3, 2)),
        lambda saved: saved["state"][0].update(exp_avg=torch.zeros(2, 3, dtype=torch.int64)),
        lambda saved: saved["state"][1].update(step=3),
        lambda saved: saved["state"].update({2: saved["state"][1]}),
        lambda saved: saved["param_groups"][0]["params"].pop(),
        lambda saved: saved["param_groups"].append(saved["param_groups"][0]),
        lambda saved: saved.pop("state"),
    ],
)
def test_what_the_next_step_would_miss_is_refused(damage):
    model, optimizer = trained()
    saved = copy.deepcopy(optimizer.state_dict())
    damage(saved)
    with pytest.raises((ValueError, KeyError)):
        restore_optimizer(torch.optim.AdamW(model.parameters()), saved)


def test_parameters_that_never_had_a_gradient_have_no_state():
    model, optimizer = trained()
    saved = copy.deepcopy(optimizer.state_dict())
    del saved["state"][1]
    restore_optimizer(torch.optim.AdamW(model.parameters()), saved)

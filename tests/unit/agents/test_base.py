"""The registry and the check before a step."""

from __future__ import annotations

import math

import pytest
import torch

from chibit.agents import AGENTS, make_agent, require_finite
from chibit.core.errors import DivergenceError, InputError
from chibit.core.runtime import Runtime
from sequence_toys import target_return_data


def test_every_entry_is_under_its_configs_key() -> None:
    assert all(entry.config.agent == key for key, entry in AGENTS.items())


def test_a_config_under_a_foreign_key_is_refused() -> None:
    class Stranger:
        agent = "dt"
        batch_size = 1

    with pytest.raises(InputError, match="takes no Stranger"):
        make_agent(Stranger(), target_return_data().spec, Runtime())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_named_with_step_and_rows(bad: float) -> None:
    with pytest.raises(DivergenceError, match="critic_loss is .* at step 12") as caught:
        require_finite(12, torch.tensor([5, 9]), loss=1.0, critic_loss=bad)
    assert caught.value.rows == (5, 9)


def test_a_loss_whose_gradient_is_still_to_be_taken_is_asked_for_without_a_word() -> None:
    loss = torch.tensor(math.inf, requires_grad=True)
    with pytest.raises(DivergenceError, match="loss is inf at step 3"):
        require_finite(3, torch.tensor([1]), loss=loss * 2)


def test_finite_values_pass() -> None:
    require_finite(0, torch.tensor([0]), loss=1e30, gradient_norm=0.0)

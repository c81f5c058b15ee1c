"""The wrapper of Chen et al. (2021) for Atari: tanh, positions of tokens, one timestep for a window."""

import pytest
import torch

from chibit.models.convolution import ConvolutionalEncoder
from chibit.models.decision_transformer import (
    DecisionTransformerModel,
    DecisionTransformerModelConfig,
    interleave,
    make_timestep_table,
)
from chibit.models.gpt import GPT, GPTConfig

WIDTH, STEPS, ACTIONS = 16, 5, 4


def make(return_tokens=True, seed=0):
    torch.manual_seed(seed)
    per_step = 3 if return_tokens else 2
    model = DecisionTransformerModel(
        DecisionTransformerModelConfig(return_scale=1.0, embedding="tanh", return_tokens=return_tokens),
        GPT(GPTConfig(n_layer=2, n_head=2, n_embd=WIDTH)),
        state_dim=28_224,
        act_dim=0,
        num_actions=ACTIONS,
        timesteps=make_timestep_table("random", 50, WIDTH),
        token_positions=make_timestep_table("random", per_step * STEPS, WIDTH),
        state_encoder=ConvolutionalEncoder((4, 84, 84), WIDTH),
    )
    return model.eval()


def batch(seed=0, first=7):
    generator = torch.Generator().manual_seed(seed)
    return {
        "returns_to_go": torch.rand(2, STEPS, generator=generator) * 5,
        "states": torch.randint(0, 256, (2, STEPS, 4, 84, 84), generator=generator, dtype=torch.uint8),
        "actions": torch.randint(0, ACTIONS, (2, STEPS), generator=generator),
        "timesteps": torch.arange(first, first + STEPS).expand(2, STEPS),
    }


def test_tokens_and_positions_are_those_of_the_formula():
    model, given = make(), batch()
    parts = (
        model.embed_return(given["returns_to_go"].unsqueeze(-1)),
        model.embed_state(given["states"]),
        model.embed_action(given["actions"]),
    )
    tokens = torch.tanh(interleave(*parts))
    torch.testing.assert_close(model.embed(**given), tokens)
    assert model.embedding_norm is None
    # One position for each token, and the timestep of the window's first step for all of them.
    inputs = tokens + model.token_positions.weight[None] + model.timesteps.weight[7]
    expected = model.action_head(model.backbone(inputs[:, :-1], None, positions=slice(1, None, 3)))
    torch.testing.assert_close(model(**given), expected)
    assert expected.shape == (2, STEPS, ACTIONS)


def test_the_later_timesteps_of_a_window_do_not_matter_and_the_first_does():
    model, given = make(), batch()
    later = {**given, "timesteps": given["timesteps"].clone()}
    later["timesteps"][:, 1:] = 0
    torch.testing.assert_close(model(**later), model(**given))
    assert not torch.allclose(model(**batch(first=8)), model(**given))


def test_without_return_tokens_returns_do_not_matter_and_no_action_sees_itself():
    model, given = make(return_tokens=False), batch()
    other = {**given, "returns_to_go": given["returns_to_go"] * 100}
    assert torch.equal(model(**other), model(**given)) and model.embed_return is None
    assert model.embed(**given).shape == (2, 2 * STEPS, WIDTH)
    changed = {**given, "actions": given["actions"].clone()}
    changed["actions"][:, 2] = (changed["actions"][:, 2] + 1) % ACTIONS
    difference = (model(**changed) - model(**given)).abs().amax(dim=(0, 2))
    assert (difference[:3] == 0).all() and (difference[3:] > 0).all()


@pytest.mark.parametrize("return_tokens", [True, False])
def test_encoded_states_and_the_last_step_give_the_same(return_tokens):
    model, given = make(return_tokens), batch()
    encoded = {**given, "states": model.embed_state(given["states"])}
    found = model(**encoded, states_are_encoded=True, last_only=True)
    torch.testing.assert_close(found[:, 0], model(**given)[:, -1])
    mask = torch.ones(2, STEPS, dtype=torch.bool)
    torch.testing.assert_close(model(**given, attention_mask=mask), model(**given))

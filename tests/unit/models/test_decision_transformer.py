"""The trajectory model: token order, causality, padding, parity, switches, sizes, stacking."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from chibit.core.errors import InputError
from chibit.losses.sequence import action_mse
from chibit.models.counting import count_parameters
from chibit.models.decision_transformer import (
    DecisionTransformerModel,
    DecisionTransformerModelConfig,
    interleave,
    make_timestep_table,
)
from chibit.models.gpt import GPT, GPTConfig

B, K, S, A = 3, 5, 4, 2
NO_DROPOUT = GPTConfig(n_layer=2, n_head=2, n_embd=16, attn_dropout=0.0, resid_dropout=0.0, embd_dropout=0.0)
CONFIG = DecisionTransformerModelConfig(return_scale=10.0, timestep_position="before_norm")


def make_model(
    config: DecisionTransformerModelConfig = CONFIG,
    gpt: GPTConfig = NO_DROPOUT,
    *,
    seed: int = 0,
    rows: int = 50,
    num_actions: int | None = None,
    **arguments: object,
) -> DecisionTransformerModel:
    torch.manual_seed(seed)
    timesteps = make_timestep_table("normal", rows, gpt.n_embd)
    return DecisionTransformerModel(
        config, GPT(gpt), state_dim=S, act_dim=A, num_actions=num_actions, timesteps=timesteps, **arguments
    )


def make_inputs(seed: int = 0, steps: int = K, num_actions: int | None = None) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    if num_actions is None:
        actions = torch.rand(B, steps, A, generator=draw) * 2 - 1
    else:
        actions = torch.randint(num_actions, (B, steps), generator=draw)
    return (
        torch.randn(B, steps, generator=draw) * 10,
        torch.randn(B, steps, S, generator=draw),
        actions,
        torch.randint(30, (B, 1), generator=draw) + torch.arange(steps),
    )


SWITCHES = {
    "chen": {},
    "wrapper": {"timestep_position": "after_norm"},
    "released": {"timestep_position": "after_norm", "head": "tied"},
    "lamo": {"timestep_position": "after_norm", "projections": "residual_mlp"},
}


def test_interleave_orders_return_state_action() -> None:
    labels = [torch.tensor([[[10.0 * k + m] for k in range(1, 4)]]) for m in range(3)]
    assert interleave(*labels).flatten().tolist() == [10, 11, 12, 20, 21, 22, 30, 31, 32]


def test_backbone_sees_the_tokens_in_order_without_the_last_action() -> None:
    model = make_model()
    seen: list[Tensor] = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    returns_to_go, states, actions, timesteps = make_inputs()
    model(returns_to_go, states, actions, timesteps)
    time = model.timesteps(timesteps)
    by_kind = [
        model.embedding_norm(embedded + time)
        for embedded in (
            model.embed_return((returns_to_go / 10.0)[..., None]),
            model.embed_state(states),
            model.embed_action(actions),
        )
    ]
    assert seen[0].shape == (B, 3 * K - 1, 16)
    for kind, tokens in enumerate(by_kind):
        expected = tokens if kind < 2 else tokens[:, :-1]
        torch.testing.assert_close(seen[0][:, kind::3], expected)


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_an_action_is_predicted_from_what_came_before_it_only(switches: dict) -> None:
    model = make_model(replace(CONFIG, **switches))
    inputs = make_inputs()
    before = model(*inputs)
    for step in range(K):
        changed = [x.clone() for x in inputs]
        changed[2][:, step] += 5.0
        for x in changed[:2]:
            x[:, step + 1 :] += 5.0
        changed[2][:, step + 1 :] -= 3.0
        after = model(*changed)
        torch.testing.assert_close(after[:, : step + 1], before[:, : step + 1], rtol=0, atol=0)
        if step + 1 < K:
            assert not torch.allclose(after[:, step + 1], before[:, step + 1])


@pytest.mark.parametrize("which", [0, 1])
def test_an_action_depends_on_its_own_return_and_state(which: int) -> None:
    model, inputs = make_model(), [x.clone() for x in make_inputs()]
    before = model(*inputs)
    inputs[which][:, 2] += 1.0
    after = model(*inputs)
    torch.testing.assert_close(after[:, :2], before[:, :2], rtol=0, atol=0)
    assert not torch.allclose(after[:, 2], before[:, 2])


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_trimming_changes_nothing(switches: dict) -> None:
    model, inputs = make_model(replace(CONFIG, **switches)), make_inputs()
    tokens = model.embed(*inputs)
    if model.config.timestep_position == "after_norm":
        tokens = tokens + model.timesteps(inputs[3]).repeat_interleave(3, dim=1)
    full = model.read_actions(model.backbone(tokens)[:, 1::3])
    torch.testing.assert_close(model(*inputs), full, rtol=0, atol=1e-6)
    torch.testing.assert_close(model(*inputs, last_only=True), full[:, -1:], rtol=0, atol=1e-6)


def test_padding_on_either_side_leaves_real_steps_alone() -> None:
    model = make_model()
    inputs = make_inputs()
    expected = model(*inputs)
    junk = make_inputs(seed=9, steps=2)
    right = [torch.cat((real, pad), dim=1) for real, pad in zip(inputs, junk, strict=True)]
    torch.testing.assert_close(model(*right)[:, :K], expected, rtol=0, atol=1e-6)
    left = [torch.cat((pad, real), dim=1) for real, pad in zip(inputs, junk, strict=True)]
    mask = torch.cat((torch.zeros(B, 2, dtype=torch.bool), torch.ones(B, K, dtype=torch.bool)), dim=1)
    torch.testing.assert_close(model(*left, mask)[:, 2:], expected, rtol=0, atol=1e-6)


def test_last_legal_timestep_works_and_later_ones_get_its_row() -> None:
    model = make_model(rows=50)
    returns_to_go, states, actions, _ = make_inputs()
    last = torch.full((B, K), 49)
    expected = model(returns_to_go, states, actions, last)
    torch.testing.assert_close(model(returns_to_go, states, actions, last + 1000), expected, rtol=0, atol=0)
    assert not torch.allclose(model(returns_to_go, states, actions, last - 1), expected)


def test_forward_equals_transformers_at_equal_weights() -> None:
    """With its row 0 of wpe at zero: transformers adds that row to every token."""
    transformers = pytest.importorskip("transformers")
    config = transformers.DecisionTransformerConfig(
        state_dim=S, act_dim=A, hidden_size=16, n_embd=16, n_layer=2, n_head=2, max_ep_len=50, n_inner=None,
        activation_function="relu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        attn_implementation="eager",
    )  # fmt: skip
    theirs = transformers.DecisionTransformerModel(config).eval()
    nn.init.zeros_(theirs.encoder.wpe.weight)
    for parameter in theirs.parameters():  # so that biases and norms are not at their trivial start
        if parameter is not theirs.encoder.wpe.weight:
            parameter.data += 0.1 * torch.randn_like(parameter)
    ours = make_model(replace(CONFIG, return_scale=1.0)).eval()
    ours.load_state_dict(_our_names(theirs, ours))
    returns_to_go, states, actions, timesteps = make_inputs()
    length = torch.tensor([K, 2, 3])
    mask = torch.arange(K) < length[:, None]
    expected = theirs(
        states=states, actions=actions, returns_to_go=returns_to_go[..., None], timesteps=timesteps,
        rewards=None, attention_mask=mask.long(),
    ).action_preds  # fmt: skip
    for given in (None, mask):
        got = ours(returns_to_go, states, actions, timesteps, given)
        torch.testing.assert_close(got[mask], expected[mask], rtol=0, atol=1e-5)


def _our_names(theirs: nn.Module, ours: nn.Module) -> dict[str, Tensor]:
    state = {name: tensor for name, tensor in ours.state_dict().items() if name.startswith("bound.")}
    outer = {
        "embed_return": "embed_return", "embed_state": "embed_state", "embed_action": "embed_action",
        "timesteps": "embed_timestep", "embedding_norm": "embed_ln", "action_head": "predict_action.0",
        "backbone.norm": "encoder.ln_f",
    }  # fmt: skip
    inner = {
        "attention_norm": "ln_1", "mlp_norm": "ln_2", "attention.qkv": "attn.c_attn",
        "attention.projection": "attn.c_proj", "expand": "mlp.c_fc", "contract": "mlp.c_proj",
    }  # fmt: skip
    pairs = dict(outer)
    for layer in range(2):
        pairs |= {f"backbone.blocks.{layer}.{o}": f"encoder.h.{layer}.{t}" for o, t in inner.items()}
    source = theirs.state_dict()
    for our_name, their_name in pairs.items():
        for kind in ("weight", "bias"):
            if f"{their_name}.{kind}" in source:
                tensor = source[f"{their_name}.{kind}"]
                is_transposed = ".c_" in their_name and kind == "weight"
                state[f"{our_name}.{kind}"] = tensor.T if is_transposed else tensor
    return state


def test_blocks_of_the_papers_size_have_594816_parameters() -> None:
    torch.manual_seed(0)
    model = DecisionTransformerModel(
        CONFIG, GPT(GPTConfig()), state_dim=11, act_dim=3, timesteps=make_timestep_table("normal", 1000, 128)
    )
    around = (1 + 1) * 128 + (11 + 1) * 128 + (3 + 1) * 128 + 2 * 128 + (128 + 1) * 3
    assert count_parameters(model) == {
        "total": 594_816 + 256 + around + 128_000,
        "trainable": 594_816 + 256 + around + 128_000,
        "without_embeddings": 594_816 + 256 + around,
        "blocks": 594_816,
    }


def test_timesteps_after_the_norm_are_added_to_normalized_tokens() -> None:
    model = make_model(replace(CONFIG, timestep_position="after_norm"))
    inputs = make_inputs()
    tokens = model.embed(*inputs)
    torch.testing.assert_close(tokens.mean(dim=-1), torch.zeros(B, 3 * K), rtol=0, atol=1e-6)
    other_time = (*inputs[:3], inputs[3] + 1)
    torch.testing.assert_close(model.embed(*other_time), tokens, rtol=0, atol=0)
    assert not torch.allclose(model(*other_time), model(*inputs))
    before = make_model(replace(CONFIG, timestep_position="before_norm"))
    assert not torch.allclose(before.embed(*other_time), before.embed(*inputs))


def test_shared_head_is_the_transposed_action_projection_without_a_bias() -> None:
    model = make_model(replace(CONFIG, head="tied"))
    hidden = torch.randn(B, K, 16)
    expected = torch.tanh(hidden @ model.embed_action.weight)
    torch.testing.assert_close(model.read_actions(hidden), expected)
    assert not any("head" in name for name, _ in model.named_parameters())


def test_residual_mlps_project_and_read_without_tanh() -> None:
    model = make_model(replace(CONFIG, projections="residual_mlp"))
    x = torch.randn(B, K, S)
    part = model.embed_state
    h = x @ part.linear.weight.T + part.linear.bias
    mlp = F.gelu(h @ part.expand.weight.T + part.expand.bias) @ part.contract.weight.T + part.contract.bias
    torch.testing.assert_close(part(x), h + mlp)
    assert model.read_actions(100 * torch.randn(B, K, 16)).abs().max() > 1.0


BOUNDS = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 0.5])


def test_actions_reach_the_environments_bounds() -> None:
    for units in ("range", "raw"):
        model = make_model(replace(CONFIG, action_units=units), action_bounds=BOUNDS)
        for bias, bound in zip((-1e3, 1e3), BOUNDS, strict=True):
            nn.init.constant_(model.action_head.bias, bias)
            torch.testing.assert_close(model(*make_inputs()), bound.expand(B, K, 2))


@pytest.mark.parametrize("projections", ["linear", "residual_mlp"])
def test_a_model_in_units_of_the_range_is_one_of_unit_bounds_between_two_maps(projections: str) -> None:
    config = replace(CONFIG, projections=projections)
    unit, scaled = make_model(config), make_model(config, action_bounds=BOUNDS)
    scaled.load_state_dict(unit.state_dict())
    center, half = (BOUNDS[0] + BOUNDS[1]) / 2, (BOUNDS[1] - BOUNDS[0]) / 2
    returns_to_go, states, actions, timesteps = make_inputs()
    actions = actions.clamp(-1.0, 1.0)
    found = scaled(returns_to_go, states, center + half * actions, timesteps)
    torch.testing.assert_close(found, center + half * unit(returns_to_go, states, actions, timesteps))


def test_unit_bounds_change_nothing_to_the_bit() -> None:
    model, hidden = make_model(), torch.randn(B, K, 16)
    assert torch.equal(model.read_actions(hidden), torch.tanh(model.action_head(hidden)))
    raw = make_model(replace(CONFIG, action_units="raw"))
    raw.load_state_dict(model.state_dict())
    assert torch.equal(raw(*make_inputs()), model(*make_inputs()))


@pytest.mark.parametrize("head", ["linear", "tied"])
def test_discrete_actions_give_logits(head: str) -> None:
    model = make_model(replace(CONFIG, head=head), num_actions=6)
    inputs = make_inputs(num_actions=6)
    logits = model(*inputs)
    assert logits.shape == (B, K, 6)
    changed = (*inputs[:2], (inputs[2] + 1) % 6, inputs[3])
    assert torch.equal(model(*changed)[:, 0], logits[:, 0])
    assert not torch.allclose(model(*changed)[:, 1:], logits[:, 1:])


def test_a_state_encoder_takes_the_place_of_the_projection() -> None:
    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(12, 16)

        def forward(self, frames: Tensor) -> Tensor:
            return self.linear(frames.flatten(2))

    model = make_model(state_encoder=Pixels())
    returns_to_go, _, actions, timesteps = make_inputs()
    assert model(returns_to_go, torch.randn(B, K, 3, 2, 2), actions, timesteps).shape == (B, K, A)


def test_attentions_are_causal_distributions_over_all_but_the_last_action() -> None:
    model = make_model()
    attentions = model.attentions(*make_inputs())
    assert len(attentions) == 2
    for weights in attentions:
        assert weights.shape == (B, 2, 3 * K - 1, 3 * K - 1)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(B, 2, 3 * K - 1))
        assert weights.triu(1).abs().max() == 0.0


class TestTimestepTable:
    def test_fresh_and_random_have_the_spread_of_their_sources(self) -> None:
        torch.manual_seed(0)
        fresh, random = (make_timestep_table(form, 1000, 64) for form in ("normal", "random"))
        assert fresh.weight.shape == random.weight.shape == (1000, 64)
        assert fresh.weight.std().item() == pytest.approx(1.0, rel=0.02)
        assert random.weight.std().item() == pytest.approx(0.02, rel=0.02)

    def test_given_is_copied_and_repeats_past_its_end(self) -> None:
        given = torch.arange(12.0).reshape(3, 4)
        table = make_timestep_table("pretrained", 7, 4, given)
        torch.testing.assert_close(table.weight.data, given[[0, 1, 2, 0, 1, 2, 0]])
        assert table.weight.requires_grad
        table.weight.data.zero_()
        assert given[1, 1] == 5.0

    def test_given_keeps_rows_beyond_what_is_asked(self) -> None:
        assert make_timestep_table("pretrained", 2, 4, torch.ones(3, 4)).num_embeddings == 3

    def test_matched_has_the_norms_but_not_the_directions(self) -> None:
        given = torch.randn(100, 32) * torch.rand(100, 1)
        table = make_timestep_table("matched", 100, 32, given).weight
        torch.testing.assert_close(table.norm(dim=-1), given.norm(dim=-1))
        assert F.cosine_similarity(table, given).abs().mean() < 0.3

    @pytest.mark.parametrize("form", ["pretrained", "matched"])
    @pytest.mark.parametrize("given", [None, torch.ones(3, 8)])
    def test_a_missing_or_misfitting_table_is_refused(self, form: str, given: Tensor | None) -> None:
        with pytest.raises(InputError, match="position table of width 4"):
            make_timestep_table(form, 10, 4, given)


def test_impossible_configs_are_refused() -> None:
    with pytest.raises(InputError, match="return_scale"):
        DecisionTransformerModelConfig(return_scale=0.0)
    with pytest.raises(InputError, match="tied"):
        DecisionTransformerModelConfig(head="tied", projections="residual_mlp")


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_stacked_models_equal_a_loop_in_value_and_gradient(switches: dict) -> None:
    models = [make_model(replace(CONFIG, **switches), seed=seed) for seed in range(3)]
    batches = [make_inputs(seed=10 + seed) for seed in range(3)]
    mask = torch.arange(K) < torch.tensor([K, 2, 3])[:, None]

    def loss(parameters: dict, buffers: dict, batch: tuple[Tensor, ...]) -> Tensor:
        predictions = functional_call(skeleton, (parameters, buffers), batch)
        return action_mse(predictions, batch[2], mask)

    parameters, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    stacked = tuple(torch.stack(x) for x in zip(*batches, strict=True))
    losses = vmap(loss)(parameters, buffers, stacked)
    gradients = vmap(grad(loss))(parameters, buffers, stacked)
    for i, (model, batch) in enumerate(zip(models, batches, strict=True)):
        alone = action_mse(model(*batch), batch[2], mask)
        alone.backward()
        torch.testing.assert_close(losses[i], alone.detach(), rtol=1e-5, atol=1e-6)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[name][i], parameter.grad, rtol=1e-4, atol=1e-6)

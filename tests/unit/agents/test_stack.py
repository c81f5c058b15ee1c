"""Several runs as one program: each is the run that it would have been alone."""

import contextlib
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

from chibit.agents import AGENTS, make_agent
from chibit.agents.dt.agent import DecisionTransformer
from chibit.agents.stack import as_stack
from chibit.core.errors import DivergenceError, InputError
from chibit.core.runtime import Runtime
from chibit.models.gpt import GPTConfig
from chibit.models.language_model import LanguageModel, LanguageModelConfig, save_language_model
from sequence_toys import SMALL, corpus_folder, language_model_folder, make_small, target_return_data

DT = {"timestep_position": "before_norm", "timestep_table": "normal", "dropout": 0.1}
CHIBIT = {"dropout": 0.2}


def words(**settings):
    return {"initializer": language_model_folder(), **CHIBIT, **settings}


FORMS = {
    "dt": DT,
    "random": CHIBIT,
    "chibit": words(similarity_weight=0.1, num_clusters=5, auxiliary_decay_steps=30, warmup_steps=20),
    "chibit paper_sum": words(similarity_weight=0.1, num_clusters=5, similarity_form="paper_sum"),
    "frozen": words(tuning="frozen"),
    "frozen blocks": words(tuning="frozen_blocks"),
    "lora": words(tuning="lora"),
    "cosine": {**CHIBIT, "learning_rate_decay_steps": 40, "decay_weights_only": True, "weight_decay": 0.1},
}
RUNS = (
    {},
    {"learning_rate": 3e-3, "weight_decay": 0.1, "grad_clip": 0.05, "backbone_learning_rate": 2e-3},
)
"""What runs of a stack differ in, beside their seeds."""


@contextlib.contextmanager
def double():
    """Float64 where the code says float32, so that only real differences are left."""
    softmax = torch.Tensor.softmax
    with (
        mock.patch.object(torch.Tensor, "float", lambda x: x.double()),
        mock.patch.object(torch.Tensor, "softmax", lambda x, dim, dtype=None: softmax(x, dim)),
    ):
        yield


def in_double(agent):
    agent.modules().double()
    agent.centers = None if agent.centers is None else agent.centers.double()
    return agent


def batch_of(sampler, *, double=False):
    batch = sampler.sample()
    if not double:
        return batch
    columns = vars(batch).items()
    return replace(batch, **{name: x.double() for name, x in columns if x.is_floating_point()})


def together(batches):
    """Batches of runs as one of the stack."""
    return replace(batches[0], **as_stack([vars(batch) for batch in batches]))


def make_runs(form, **settings):
    """Agents and samplers of two runs, made with another seed each."""
    return [make_small(seed=i, **{**FORMS[form], **own, **settings}) for i, own in enumerate(RUNS)]


def numbers(agent):
    """Parameters and moments of its checkpoint, by name."""
    state = agent.state_dict()
    moments = state.training["optimizer"]["state"].items()
    return dict(state.tensors) | {(i, key): x for i, own in moments for key, x in own.items()}


class Alone:
    """A run by itself, whose draws of dropout are not disturbed by others in this process."""

    def __init__(self, agent, seed):
        self.agent, self.state = agent, torch.Generator().manual_seed(100 + seed).get_state()

    def update(self, batch):
        torch.set_rng_state(self.state)
        metrics = self.agent.update(batch)
        self.state = torch.get_rng_state()
        return metrics


def compare(alone, stacked, *, steps, losses=1e-12, parameters=1e-10):
    """Train runs alone and in a stack, in the precision of their parameters."""
    is_double = next(alone[0][0].modules().parameters()).dtype == torch.float64
    singles = [Alone(agent, seed) for seed, (agent, _) in enumerate(alone)]
    stack = DecisionTransformer.stack([agent for agent, _ in stacked])
    stack.begin_draws([single.state for single in singles])
    for _ in range(steps):
        expected = [
            single.update(batch_of(sampler, double=is_double))
            for single, (_, sampler) in zip(singles, alone, strict=True)
        ]
        metrics = stack.update(together([batch_of(sampler, double=is_double) for _, sampler in stacked]))
        assert metrics.keys() == expected[0].keys()
        for name, values in metrics.items():
            for run, wanted in enumerate(expected):
                assert float(values[run]) == pytest.approx(float(wanted[name]), rel=losses, abs=losses), name
    assert not stack.failures()
    stack.scatter()
    for single, (agent, _) in zip(singles, stacked, strict=True):
        assert agent.step == steps
        torch.testing.assert_close(numbers(agent), numbers(single.agent), rtol=parameters, atol=parameters)
    return singles, stack


LONG = ("dt", "random", "chibit", "frozen", "lora")


@pytest.mark.parametrize(
    ("form", "draws"), [*((form, "counter") for form in FORMS), ("dt", "auto"), ("lora", "auto")]
)
def test_each_run_of_a_stack_is_the_run_alone(form, draws):
    alone, stacked = (make_runs(form, dropout_draws=draws) for _ in range(2))
    for agent, _ in (*alone, *stacked):
        in_double(agent)
    with double():
        compare(alone, stacked, steps=50 if form in LONG and draws == "counter" else 10)


def test_runs_leave_a_stack_go_on_alone_and_come_back():
    """Ten steps: in a stack, alone, and in another stack, as ten steps alone."""
    (alone, moved) = (make_runs("chibit", dropout_draws="counter") for _ in range(2))
    for agent, _ in (*alone, *moved):
        in_double(agent)
    agents = [agent for agent, _ in moved]
    with double():
        for i in range(10):
            for agent, sampler in alone:
                agent.update(batch_of(sampler, double=True))
            batches = [batch_of(sampler, double=True) for _, sampler in moved]
            if i in (0, 7):
                stack = DecisionTransformer.stack(agents)
            if 4 <= i < 7:
                for agent, batch in zip(agents, batches, strict=True):
                    agent.update(batch)
            else:
                stack.update(together(batches))
            if i in (3, 9):
                stack.scatter()
    for agent, (wanted, _) in zip(agents, alone, strict=True):
        torch.testing.assert_close(numbers(agent), numbers(wanted), rtol=1e-10, atol=1e-10)


def test_in_single_precision_only_the_order_of_sums_is_another():
    compare(*(make_runs("random") for _ in range(2)), steps=10, losses=1e-4, parameters=2e-3)


def test_in_bfloat16_a_stack_learns_as_its_runs_do():
    alone, stacked = (make_runs("random", precision="bf16", dropout=0.0) for _ in range(2))
    exact = make_runs("random", dropout=0.0)
    stack = DecisionTransformer.stack([agent for agent, _ in stacked])
    for _ in range(3):
        expected, unrounded = (
            [float(agent.update(sampler.sample())["train/loss"]) for agent, sampler in runs]
            for runs in (alone, exact)
        )
        losses = stack.update(together([sampler.sample() for _, sampler in stacked]))["train/loss"].tolist()
        assert losses == pytest.approx(expected, rel=0.02)
        assert all(
            one != pytest.approx(other, rel=1e-5) for one, other in zip(losses, unrounded, strict=True)
        )


@pytest.mark.parametrize("draws", ["auto", "counter"])
def test_a_run_that_diverges_stands_still_and_the_other_goes_on(draws):
    alone, stacked = (make_runs("random", dropout_draws=draws) for _ in range(2))
    single, agents = Alone(alone[0][0], 0), [agent for agent, _ in stacked]
    stack = DecisionTransformer.stack(agents)
    stack.begin_draws([single.state] * 2)
    for step in range(6):
        batches = [batch_of(sampler) for _, sampler in stacked[: len(stack.agents)]]
        if step == 2:
            stack.scatter()
            before = {name: x.clone() for name, x in numbers(agents[1]).items()}
            batches[1].states[0, 0] = torch.nan
            rows = tuple(batches[1].rows.tolist())
        single.update(batch_of(alone[0][1]))
        stack.update(together(batches))
        if step == 3:
            stack.scatter()
            [(place, error)] = stack.failures().items()
            assert place == 1 and (error.step, error.rows) == (2, rows)
            assert isinstance(error, DivergenceError) and "loss is nan at step 2" in str(error)
            after = numbers(agents[1])
            moved = [name for name, x in before.items() if not torch.equal(x, after[name])]
            assert all(name[1] == "step" for name in moved)
            stack.keep([0])
            assert stack.failures() == {}
    stack.scatter()
    torch.testing.assert_close(numbers(agents[0]), numbers(single.agent), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context_length": 3}, "run 1: context_length is 3, in the first run of the stack 4"),
        ({"tuning": "frozen"}, "run 1: tuning is frozen"),
        ({"dropout": 0.3}, "run 1: dropout is 0.3, in the first run of the stack 0.2"),
        (
            {"similarity_weight": 0.1, "similarity_source": "words", "num_clusters": 5},
            "similarity_weight is 1",
        ),
        ({"max_timesteps": 50}, "run 1: model.timesteps.weight is "),
        ({"precision": "bf16"}, "run 1: runtime is "),
        ({"return_baseline": (1.0, 0.0)}, "run 1: return_baseline is True"),
    ],
)
def test_runs_of_other_shapes_are_refused_by_what_differs(settings, message):
    if "similarity_source" in settings:
        settings = {**settings, "similarity_source": language_model_folder()}
    agents = [make_small(**CHIBIT)[0], make_small(**{**CHIBIT, **settings})[0]]
    with pytest.raises(InputError, match=message):
        DecisionTransformer.stack(agents)


@pytest.mark.parametrize(
    ("other", "message"),
    [({"n_head": 1}, "n_head is 1, in the first run of the stack 2"), ({"activation": "gelu"}, "activation")],
)
def test_backbones_of_the_same_sizes_that_compute_otherwise_are_refused(other, message, tmp_path):
    """One program would give all runs the heads and the activation of the first."""
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16}
    config = LanguageModelConfig(gpt=GPTConfig(**{**shape, **other}), vocab_size=50, n_positions=32)
    folder = str(save_language_model(LanguageModel(config), tmp_path / "other"))
    first, alike, second = (make_small(**words(**own))[0] for own in ({}, {}, {"initializer": folder}))
    assert first.stack_obstacle(alike) is None
    with pytest.raises(InputError, match=message):
        DecisionTransformer.stack([first, second])


def test_runs_at_other_steps_and_those_that_read_text_are_refused():
    (first, sampler), (second, _) = make_small(), make_small()
    first.update(sampler.sample())
    with pytest.raises(InputError, match="run 1: step is 0, in the first run of the stack 1"):
        DecisionTransformer.stack([first, second])
    reading, _ = make_small(
        initializer=language_model_folder(), language_corpus=corpus_folder(), language_weight=0.1,
        language_block=16,
    )  # fmt: skip
    with pytest.raises(InputError, match="run 0: language_model trains by itself only"):
        DecisionTransformer.stack([reading, reading])
    inheriting = make_agent(AGENTS["reinformer"].config(**SMALL), target_return_data().spec, Runtime())
    with pytest.raises(InputError, match="run 1: .* trains by itself only"):
        DecisionTransformer.stack([first, inheriting])


def test_scales_of_returns_are_each_runs_own():
    alone, stacked = (
        [make_small(seed=i, return_scale=scale, return_baseline=baseline, dropout=0.0)
         for i, (scale, baseline) in enumerate([(5.0, (1.0, 0.1)), (20.0, (2.0, -0.1))])]
        for _ in range(2)
    )  # fmt: skip
    compare(alone, stacked, steps=3, losses=1e-5, parameters=1e-3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_policy_of_a_stack_acts_as_each_runs_own(order):
    agents = [make_small(seed=i)[0] for i in range(2)]
    policy, own = DecisionTransformer.stack(agents).policy(), [agents[i].policy((3.0, 7.0)) for i in order]
    draw = np.random.default_rng(0)
    policy.seat(np.repeat(order, 4))
    policy.reset(8, target_return=np.tile([3.0, 3.0, 7.0, 7.0], 2))
    for each in own:
        each.reset(4)
    dones = np.zeros(8, bool)
    for step in range(6):
        observations = draw.normal(size=(8, target_return_data().spec.state_dim)).astype(np.float32)
        actions = policy.act(observations)
        expected = np.concatenate([each.act(observations[4 * i :][:4]) for i, each in enumerate(own)])
        live = ~dones
        np.testing.assert_allclose(actions[live], expected[live], atol=1e-5)
        dones[[1, 5, 6]] |= np.array([step >= 1, step >= 3, step >= 2])
        rewards = draw.normal(size=8)
        policy.observe(rewards, dones)
        for i, each in enumerate(own):
            each.observe(rewards[4 * i :][:4], dones[4 * i :][:4])

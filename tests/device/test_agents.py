"""Every agent on a device that is not the CPU: nothing mixed, nothing waited for, the CPU's numbers."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

import sequence_toys
from atari_toys import numbered_pictures
from baseline_toys import CONTINUOUS, DISCRETE, identity_data, small_config
from chibit.agents import AGENTS, guard, make_agent
from chibit.core.errors import DivergenceError
from chibit.core.runtime import Runtime, read_scalars
from chibit.data.load import from_arrays
from chibit.data.samplers.placement import place
from chibit.data.samplers.windows import WindowSampler
from chibit.data.spec import ObservationPart
from chibit.losses.similarity import SimilarityForm
from chibit.models.gpt import GPTShape
from chibit.recipes import RECIPES
from pretend_device import PretendTensor, pretend_device

DEVICE = Runtime(device="pretend:0")
ALL = ("dt", *CONTINUOUS, *DISCRETE)
STEPS = 7
"""So many that every agent goes through all of its phases."""


def make(name, runtime, **settings):
    """A small agent and its sampler; parameters are drawn from the same numbers on every device."""
    dataset = sequence_toys.target_return_data() if name == "dt" else identity_data(name in DISCRETE)
    config = AGENTS["dt"].config(**sequence_toys.SMALL) if name == "dt" else small_config(name)
    torch.manual_seed(0)
    agent = make_agent(replace(config, **settings), dataset.spec, runtime)
    return agent, agent.sampler(agent.prepare(dataset), np.random.default_rng(0))


def run(agent, sampler, num_updates=STEPS):
    """What some updates give; names and numbers."""
    metrics = [agent.update(sampler.sample()) for _ in range(num_updates)]
    return [dict(zip(each, read_scalars(each.values()), strict=True)) for each in metrics]


def snapshot(agent):
    """Copies of all tensors of a checkpoint, on the host."""
    state = agent.state_dict()
    leaves = torch.utils._pytree.tree_leaves((dict(state.tensors), state.training))
    return [leaf.cpu().clone() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def spoilt(batch):
    """A batch with a state that is not a number."""
    states = batch.states.clone()
    states[3, 0] = torch.nan
    return replace(batch, states=states)


@pytest.mark.parametrize("name", ALL)
def test_training_and_acting_give_what_the_cpu_gives(name):
    settings = {"dropout": 0.0} if name == "dt" else {}
    expected, sampler = make(name, Runtime(), **settings)
    expected_metrics = run(expected, sampler)
    observations = sampler.dataset.observations[:4]
    targets = (1.0,) if name == "dt" else None
    acting = expected.policy(targets)
    acting.reset(4)
    with pretend_device():
        agent, sampler = make(name, DEVICE, **settings)
        metrics = run(agent, sampler)
        assert all(isinstance(weight.data, PretendTensor) for weight in agent.modules().parameters())
        policy = agent.policy(targets)
        policy.reset(4)
        actions = policy.act(observations)
    for seen, wanted in zip(metrics, expected_metrics, strict=True):
        assert seen == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    np.testing.assert_allclose(actions, acting.act(observations), rtol=1e-4, atol=1e-5)


def steps_without_waiting(seen, agent, sampler, num_steps, most_copies=1):
    """Take steps of data that lie on the device; nothing waits, and only what was drawn travels there."""
    sampler = place(sampler, DEVICE.torch_device)
    for _ in range(num_steps):
        begins_round = getattr(agent, "_round", True) is None  # AWR values all its data then
        seen.clear()
        metrics = agent.update(sampler.sample())
        assert seen.syncs == {}
        assert 1 <= sum(seen.copies.values()) <= most_copies + begins_round
    seen.clear()
    assert all(np.isfinite(read_scalars(metrics.values())))
    assert sum(seen.syncs.values()) == 1


def plays(agent, sampler, targets=None):
    """Whether its policy acts on the first observations."""
    policy = agent.policy(targets)
    policy.reset(2)
    rows = np.arange(2)
    batch = sampler.windows(rows) if isinstance(sampler, WindowSampler) else sampler.transitions(rows)
    raw = sampler.dataset.spec.image_shape
    seen = batch.states.cpu().numpy() if raw else sampler.dataset.observations[:2]
    return bool(np.isfinite(policy.act(seen[:, 0] if seen.ndim == 5 else seen)).all())


@pytest.mark.parametrize("name", ALL)
def test_no_step_waits_for_the_device(name):
    with pretend_device() as seen:
        agent, sampler = make(name, DEVICE)
        steps_without_waiting(seen, agent, sampler, STEPS)


@pytest.fixture(scope="module")
def instructed(tmp_path_factory):
    """Eight episodes of BabyAI's sizes, of two instructions."""
    draw = np.random.default_rng(0)
    parts = (
        ObservationPart(path=("direction",), shape=(4,)),
        ObservationPart(path=("image",), shape=(7, 7, 3)),
    )
    made = from_arrays(
        draw.integers(0, 4, (40, 151)), draw.integers(0, 3, 40), np.ones(40), np.arange(40) % 5 == 4,
        cache=tmp_path_factory.mktemp("instructed"),
    )  # fmt: skip
    texts = np.array(["go to the red ball", "open a door"] * 4)
    return replace(made, spec=replace(made.spec, observation_parts=parts), missions=texts)


def test_the_agent_that_reads_gives_what_the_cpu_gives_and_waits_for_nothing(instructed):
    def made(runtime):
        torch.manual_seed(0)
        shape = GPTShape(n_layer=1, n_embd=16)
        config = AGENTS["text"].config(gpt=shape, batch_size=4, context_length=8)
        agent = make_agent(config, instructed.spec, runtime)
        return agent, agent.sampler(agent.prepare(instructed), np.random.default_rng(0))

    expected = run(*made(Runtime()), 3)
    with pretend_device() as seen:
        for there, wanted in zip(run(*made(DEVICE), 3), expected, strict=True):
            assert there == pytest.approx(wanted, rel=1e-4, abs=1e-6)
        steps_without_waiting(seen, *made(DEVICE), 3)


def forms():
    """Settings of the sequence agent, by what they are called."""
    words = {"initializer": sequence_toys.language_model_folder()}
    text = {"language_corpus": sequence_toys.corpus_folder(), "language_weight": 0.4, "language_block": 16}
    tuned = {f"tuning {kind}": {**words, "tuning": kind} for kind in ("frozen", "frozen_blocks", "lora")}
    moved = {f"transfer {kind}": {**words, "transfer": kind} for kind in ("blocks", "positions", "shuffled")}
    similar = {
        f"similarity {form}": {**words, "similarity_weight": 0.1, "num_clusters": 5, "similarity_form": form}
        for form in get_args(SimilarityForm)
    }
    tables = {f"table {form}": {"timestep_table": form} for form in ("random", "normal", "zeros")}
    return {
        "pretrained": words,
        "shipped": {"initializer": "chibit"},
        "matched": {"initializer": f"random_matched:{words['initializer']}"},
        "language": {**words, **text, "perplexity_every": 2},
        "language, similarity, lora": {**similar["similarity mean_max_cosine"], **text, "tuning": "lora"},
        **tuned, **moved, **similar, **tables,
        "residual": {"projections": "residual_mlp"},
        "tanh": {"embedding": "tanh"},
        "without returns": {"return_tokens": False},
        "sparse": {"reward_mode": "sparse"},
        "two rates": {**words, "backbone_learning_rate": 1e-5, "learning_rate_decay_steps": 10},
        "by the last step": {"window_anchor": "last", "decay_weights_only": True},
    }  # fmt: skip


@pytest.mark.parametrize("form", [*forms()])
def test_every_form_of_the_sequence_agent_steps_and_acts_there(form):
    settings, data = forms()[form], sequence_toys.target_return_data()
    base = sequence_toys.WITHOUT_SHAPE if "initializer" in settings else sequence_toys.SMALL
    with pretend_device() as seen:
        agent = make_agent(AGENTS["dt"].config(**{**base, **settings}), data.spec, DEVICE)
        sampler = agent.sampler(agent.prepare(data), np.random.default_rng(0))
        if "language" in form:
            agent.language.perplexity(0, DEVICE)  # whose fixed text goes there once
        steps_without_waiting(seen, agent, sampler, 2, most_copies=1 + ("language" in form))
        assert plays(agent, sampler, [1.0])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three short games of Breakout, as far as sizes go."""
    return numbered_pictures(tmp_path_factory.mktemp("pictures"), [9, 4, 6])


@pytest.mark.parametrize("recipe", ["dt", "bc", "chibit", "cql", "qr_dqn", "rem"])
def test_methods_of_table_1_step_and_act_on_pictures_there(recipe, pictures):
    config = RECIPES[f"{recipe}_atari"].run(data="x").agent
    small = (
        {"batch_size": 2, "max_timesteps": 64, "context_length": 4}
        if config.agent == "dt"
        else {"batch_size": 2}
    )
    with pretend_device() as seen:
        agent = make_agent(replace(config, **small), pictures.spec, DEVICE)
        sampler = agent.sampler(agent.prepare(pictures), np.random.default_rng(0))
        steps_without_waiting(seen, agent, sampler, 1)
        assert plays(agent, sampler, [3.0] if agent.is_return_conditioned else None)


@pytest.mark.parametrize("name", ALL)
def test_from_a_bad_step_on_nothing_changes_until_it_is_told_of(name):
    """The fifth step is the last of a round of AWR, after which its copies would move."""
    with pretend_device() as seen:
        agent, sampler = make(name, DEVICE)
        run(agent, sampler, 5)
        before, first, second = snapshot(agent), spoilt(sampler.sample()), spoilt(sampler.sample())
        good = sampler.sample()
        seen.clear()
        for batch in (first, good, second, good):
            agent.update(batch)
        assert seen.syncs == {}
        with pytest.raises(DivergenceError, match="is nan at step 5, expected a finite number") as caught:
            agent.check()
        assert caught.value.rows == tuple(first.rows.tolist())
        assert agent.step == caught.value.step == 5
        assert all(map(torch.equal, before, snapshot(agent)))
        agent.update(good)
        agent.check()
        assert not all(map(torch.equal, before, snapshot(agent)))


@pytest.mark.parametrize("name", ["dt", "bc", "awr", "cql"])
def test_after_a_bad_first_step_the_next_one_is_as_if_it_were_the_first(name):
    with pretend_device():
        after = []
        for begins_badly in (True, False):
            agent, sampler = make(name, DEVICE)
            batch = sampler.sample()
            if begins_badly:
                agent.update(spoilt(batch))
                with pytest.raises(DivergenceError, match="at step 0"):
                    agent.check()
            torch.manual_seed(1)
            agent.update(batch)
            after.append(snapshot(agent))
        assert len(after[0]) == len(after[1]) and all(map(torch.equal, *after))


def test_sgd_without_momentum_goes_on_from_its_checkpoint():
    with pretend_device():
        agent, sampler = make("awr", DEVICE, momentum=0.0)
        run(agent, sampler)
        other, _ = make("awr", DEVICE, momentum=0.0)
        other.load_state_dict(agent.state_dict())
        batch = sampler.sample()
        for each in (agent, other):
            each.update(batch)
        assert all(map(torch.equal, snapshot(agent), snapshot(other)))


def test_bad_steps_are_told_of_at_the_latest_after_a_thousand(monkeypatch):
    monkeypatch.setattr(guard, "MOST_UNREAD", 5)
    with pretend_device():
        agent, sampler = make("bc", DEVICE)
        agent.update(spoilt(sampler.sample()))
        for _ in range(3):
            agent.update(sampler.sample())
        with pytest.raises(DivergenceError, match="is nan at step 0"):
            agent.update(sampler.sample())
        assert agent.step == 0


def test_an_optimizer_that_cannot_leave_a_step_out_has_the_host_wait():
    parameter = torch.nn.Parameter(torch.ones(2))
    values = {"loss": torch.tensor(torch.nan)}
    with pretend_device():
        plain = guard.StepGuard(DEVICE.torch_device, [torch.optim.RMSprop([parameter])])
        with pytest.raises(DivergenceError, match="loss is nan at step 4"):
            plain.admit(4, torch.arange(2), **values)


def test_the_device_refuses_a_mixture_and_sees_waits_and_copies():
    with pretend_device() as seen:
        there = torch.ones(3, device="pretend")
        assert (there * 2).sum().item() == 6
        assert [kind.split()[0] for kind in seen.syncs] == ["item"]
        seen.clear()
        with pytest.raises(RuntimeError, match="tensors of two devices"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="generator of the CPU"):
            torch.rand(3, device="pretend", generator=torch.Generator())
        torch.rand(3, device="pretend", generator=torch.Generator("pretend"))
        assert not seen.syncs and not seen.copies
        torch.ones(3).to("pretend")
        assert sum(seen.copies.values()) == 1
        there.cpu(), there[there > 0]
        assert sorted(kind.split()[0] for kind in seen.syncs) == ["boolean", "to"]

"""Observations that vary little beside their size: their signal goes from the file to model and policy."""

import numpy as np
import pytest
import torch

from chibit.agents import AGENTS, make_agent
from chibit.core.runtime import Runtime
from chibit.data.choices import constant_dimensions
from chibit.data.inspect import describe
from chibit.data.load import from_arrays
from chibit.data.normalizer import StateNormalizer
from chibit.data.samplers.transitions import TransitionSampler
from chibit.data.samplers.windows import WindowSampler
from chibit.data.store import open_store
from chibit.models.gpt import GPTShape
from chibit.policy.policy import Policy

NUM = 1000
RNG = np.random.default_rng(0)
X, LAST = RNG.standard_normal((NUM, 3)), RNG.standard_normal((NUM, 3))
ENDS = np.arange(NUM) % 10 == 9
ACTIONS = np.tanh(X[:, :1] - 0.7 * X[:, 1:2])


def log_of(offset, scale, cache, dtype=np.float64):
    """States of a fixed shape in other units; what follows the last step of an episode is known."""
    states, following = (np.asarray(offset + np.array(scale) * x, dtype) for x in (X, np.roll(X, -1, 0)))
    following[ENDS] = np.asarray(offset + np.array(scale) * LAST[ENDS], dtype)
    return from_arrays(states, ACTIONS, X[:, 2], ENDS, next_observations=following, cache=cache), states


def every_state(dataset):
    """What samplers give for all rows: states of windows, of transitions, and those that follow."""
    rows, dice = np.arange(NUM), np.random.default_rng(0)
    windows = WindowSampler(dataset, context_length=2, batch_size=1, generator=dice).windows(rows)
    batch = TransitionSampler(dataset, batch_size=1, generator=dice).transitions(rows)
    return windows.states.numpy(), batch.states.numpy(), batch.next_states.numpy()


@pytest.mark.parametrize(("offset", "scale"), [(52.0, 3e-5), (-1.7e9, 1.0), (1.0, 1e-9), (1e-3, 1e-10)])
def test_models_and_policies_see_the_same_states_with_an_offset_as_without(offset, scale, tmp_path):
    plain, _ = log_of(0.0, 1.0, tmp_path)
    shifted, raw = log_of(offset, scale, tmp_path)
    rounding = 1e-6 + abs(offset) * 4e-16 / scale  # of what float64 has of the signal
    for expected, found in zip(every_state(plain), every_state(shifted), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=rounding)
    seen = StateNormalizer.from_spec(shifted.spec)(raw)
    np.testing.assert_allclose(seen, every_state(shifted)[1], atol=1e-3)
    np.testing.assert_allclose(shifted.observations, raw, rtol=1e-12)
    assert constant_dimensions(shifted) == () and open_store(shifted.folder).spec == shifted.spec
    part = shifted.random_fraction(0.5, 0)
    np.testing.assert_allclose(part.observations, raw[part.in_store(np.arange(part.num_steps))], rtol=1e-12)
    assert part.spec.state_offset == shifted.spec.state_offset


def test_what_is_rounding_is_constant_and_what_float32_holds_has_no_offset(tmp_path):
    constant = np.array([52.0, 0.1, 0.0]) + 1e-17 * X
    dataset = from_arrays(constant, ACTIONS, X[:, 2], ENDS, cache=tmp_path)
    assert constant_dimensions(dataset) == (0, 1, 2) and dataset.spec.state_std == (1.0, 1.0, 1.0)
    assert dataset.spec.state_offset == ()
    narrow, raw = log_of(52.0, 3e-5, tmp_path, np.float32)  # nothing is there to be saved
    assert narrow.spec.state_offset == () and np.array_equal(narrow.observations, raw)
    for offset, scale in ((0.0, 1.0), (100.0, 1.0), (0.0, 1e-7)):
        assert log_of(offset, scale, tmp_path)[0].spec.state_offset == ()


def test_small_numbers_are_spread_like_large_ones(tmp_path):
    for expected, found in zip(
        every_state(log_of(0.0, 1.0, tmp_path)[0]), every_state(log_of(0.0, 1e-8, tmp_path)[0]), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-6)


def test_it_is_said(tmp_path):
    dataset, _ = log_of([0.0, 52.0, 0.0], [1.0, 3e-5, 1.0], tmp_path)
    assert dataset.spec.state_offset[0] == dataset.spec.state_offset[2] == 0.0
    [said] = [note for note in describe(dataset).notes if "double precision" in note]
    assert "1 observation dimension (1)" in said


SMALL = {
    "bc": {"hidden_sizes": (32, 32), "learning_rate": 3e-3},
    "dt": {"gpt": GPTShape(n_layer=1, n_embd=16), "context_length": 2, "warmup_steps": 0, "dropout": 0.0},
}


@pytest.mark.parametrize("name", SMALL)
def test_it_is_learned_and_acted_on(name, tmp_path):
    found = []
    for offset, scale in ((0.0, 1.0), (52.0, 3e-5)):
        dataset, raw = log_of(offset, scale, tmp_path)
        torch.manual_seed(0)
        agent = make_agent(AGENTS[name].config(batch_size=64, **SMALL[name]), dataset.spec, Runtime())
        sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(0))
        losses = [float(agent.update(sampler.sample())["train/loss"]) for _ in range(120)]
        Policy(agent, dataset.spec).save_pretrained(tmp_path / f"{name}{offset}")
        policy = Policy.from_pretrained(tmp_path / f"{name}{offset}")
        policy.reset(NUM)
        found.append((policy.act(raw), losses[-1]))
    (plain, loss), (shifted, shifted_loss) = found
    assert shifted_loss == pytest.approx(loss, rel=0.1) and (name == "dt" or loss < 0.05)
    np.testing.assert_allclose(shifted, plain, atol=0.02)


@pytest.mark.slow
def test_a_graph_takes_double_precision_where_it_must(tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from chibit.policy.onnx import export_onnx

    dataset, raw = log_of(52.0, 3e-5, tmp_path)
    agent = make_agent(AGENTS["bc"].config(hidden_sizes=(8,)), dataset.spec, Runtime())
    session = onnxruntime.InferenceSession(export_onnx(agent, dataset.spec, tmp_path / "policy.onnx"))
    [actions] = session.run(None, {"observations": raw})
    np.testing.assert_allclose(actions, agent.policy(None).act(raw), atol=1e-5)


def other_log_of(mean, cache):
    """Degrees around another mean: 400 steps that the first log does not have, and its first 100."""
    states = np.concatenate([mean + 3e-5 * X[:400] + 1e-5, 52.0 + 3e-5 * X[:100]])
    rows = [*range(400), *range(100)]
    log = from_arrays(states, ACTIONS[rows], X[rows, 2], ENDS[rows], name="other", cache=cache)
    return log, states


def test_data_of_another_offset_are_seen_as_those_that_a_model_learned_from(tmp_path):
    log, _ = log_of(52.0, 3e-5, tmp_path)
    other, raw = other_log_of(52.001, tmp_path)
    assert other.spec.state_offset != log.spec.state_offset
    seen = other.seen_as(log.spec)
    expected = StateNormalizer.from_spec(log.spec)(raw)
    dice = np.random.default_rng(0)
    windows = WindowSampler(seen, context_length=1, batch_size=1, generator=dice).windows(np.arange(500))
    np.testing.assert_allclose(windows.states[:, 0], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(seen.observations, raw, rtol=1e-9)
    assert np.array_equal(seen.actions, other.actions) and np.array_equal(seen.rewards, other.rewards)
    assert log.seen_as(log.spec).records is log.records


@pytest.mark.parametrize("mean", [52.001, 40.0])
def test_copies_are_found_in_data_of_another_offset(mean, tmp_path):
    log, _ = log_of(52.0, 3e-5, tmp_path)
    other, raw = other_log_of(mean, tmp_path)
    apart = other.without_copies_of(log)
    assert apart.num_episodes == 40 and "10 episodes are in" in apart.notes[-1]
    np.testing.assert_allclose(apart.observations, raw[:400], rtol=1e-7)

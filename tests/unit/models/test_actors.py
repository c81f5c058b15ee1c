import math

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from chibit.models.actors import (
    CategoricalActor,
    DeterministicActor,
    Gaussian,
    GaussianActor,
    TanhGaussian,
    TanhGaussianActor,
)
from chibit.models.mlp import VectorEncoder


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_gaussian_log_prob_by_hand():
    gaussian = Gaussian(torch.tensor([[0.0, 1.0]]), torch.tensor([0.0, math.log(2.0)]))
    expected = -0.5 * 1.0 - 0.5 * 0.25 - math.log(2.0) - math.log(2 * math.pi)
    assert gaussian.log_prob(torch.tensor([[1.0, 2.0]])).item() == pytest.approx(expected)


def test_gaussian_mode_is_cut_to_the_action_range():
    assert Gaussian(torch.tensor([[3.0, -0.5]]), torch.zeros(2)).mode().tolist() == [[1.0, -0.5]]


def reference(tanh_gaussian):
    normal = Normal(tanh_gaussian.mean, tanh_gaussian.log_std.exp())
    return Independent(TransformedDistribution(normal, [TanhTransform(cache_size=0)]), 1)


def test_tanh_gaussian_agrees_with_torch_distributions():
    ours = TanhGaussian(torch.randn(7, 3), 0.3 * torch.randn(7, 3))
    actions = torch.rand(7, 3) * 1.8 - 0.9
    torch.testing.assert_close(ours.log_prob(actions), reference(ours).log_prob(actions))


def test_tanh_gaussian_samples_carry_their_own_density():
    ours = TanhGaussian(0.3 * torch.randn(6, 2), torch.full((6, 2), -1.0))
    actions, log_probs = ours.sample(5)
    assert actions.shape == (6, 5, 2)
    assert log_probs.shape == (6, 5)
    torch.testing.assert_close(log_probs, ours.log_prob(actions), rtol=1e-4, atol=1e-4)
    expected = torch.stack([reference(ours).log_prob(actions[:, m]) for m in range(5)], dim=1)
    torch.testing.assert_close(log_probs, expected, rtol=1e-4, atol=1e-4)


def test_tanh_gaussian_samples_have_the_stated_moments():
    actions, _ = TanhGaussian(torch.tensor([[0.5]]), torch.tensor([[-1.0]])).sample(20_000)
    raw = torch.atanh(actions)
    assert raw.mean().item() == pytest.approx(0.5, abs=0.01)
    assert raw.std().item() == pytest.approx(math.exp(-1.0), abs=0.01)


def test_density_is_finite_at_and_beyond_the_bounds():
    gaussian = TanhGaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    assert torch.isfinite(gaussian.log_prob(torch.tensor([[1.0, -1.0]]))).all()
    far = TanhGaussian(torch.full((1, 2), 50.0), torch.zeros(1, 2))
    actions, log_probs = far.sample(4)
    assert torch.isfinite(log_probs).all()
    assert actions.abs().max() <= 1.0


def test_gradients_flow_through_samples():
    mean = torch.zeros(2, 1, requires_grad=True)
    actions, log_probs = TanhGaussian(mean, torch.zeros(2, 1)).sample(3)
    (actions.sum() + log_probs.sum()).backward()
    assert (mean.grad != 0).all()


def test_actors_stay_in_range():
    states = 100 * torch.randn(16, 4)
    assert DeterministicActor(4, 2, (8,))(states).abs().max() <= 1.0
    actor = TanhGaussianActor(4, 2, (8,), log_std_range=(-5.0, 0.0))
    log_std = actor(states).log_std
    assert log_std.min() >= -5.0
    assert log_std.max() <= 0.0


def test_gaussian_actor_with_fixed_spread_has_no_parameter_for_it():
    fixed = GaussianActor(3, 2, (4,), tanh_mean=False, fixed_std=0.4)
    assert "log_std" not in dict(fixed.named_parameters())
    torch.testing.assert_close(fixed(torch.zeros(1, 3)).log_std.exp(), torch.full((2,), 0.4))
    learned = GaussianActor(3, 2, (4,), tanh_mean=True)
    assert "log_std" in dict(learned.named_parameters())
    for std in (1e-3, 20.0):  # beyond what a learned spread is kept to
        given = GaussianActor(3, 2, (4,), tanh_mean=False, fixed_std=std)(torch.zeros(1, 3))
        torch.testing.assert_close(given.log_std.exp(), torch.full((2,), std))
        with torch.no_grad():
            learned.log_std.fill_(math.log(std))
        assert not torch.allclose(learned(torch.zeros(1, 3)).log_std.exp(), torch.full((2,), std))
    assert learned(100 * torch.randn(9, 3)).mean.abs().max() <= 1.0


def test_categorical_actor_gives_a_logit_for_each_action():
    assert CategoricalActor(VectorEncoder(4, (8, 6)), 3)(torch.randn(5, 4)).shape == (5, 3)

"""Behaviour policies: small stochastic actors, stored as a ladder from untrained to expert, one file each environment.

An actor is an MLP whose observation normalisation is folded into its first layer. Its action is
`clip(mean(observation) + exp(log_std) * noise, -1, 1)`; the random policy is uniform over the action box. Only
numpy is used: data are collected without torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from chibit.core.errors import DamagedFileError, InputError

LADDER_NAMES = ("hopper", "halfcheetah", "walker2d")
_FORMAT = "chibit-behaviour-ladder/1"
_HIDDEN = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}


@dataclass(frozen=True, kw_only=True)
class PolicyRecord:
    """What is known about one behaviour policy."""

    name: str
    """`random`, `step-000040000` and so on, or `expert`."""
    algorithm: str
    """How it was made: `uniform`, `ppo`, or `dagger` (distilled from an expert)."""
    train_steps: int
    """Environment steps its training had seen."""
    activation: str
    """Of the hidden layers: `relu` or `tanh`."""
    mean_score: float
    """Mean normalised return (0 to 100 between D4RL's random and expert) with its noise on."""
    std_score: float
    """Population standard deviation of the normalised return over episodes."""
    mean_return: float
    """Mean raw return."""
    num_episodes: int
    """Episodes that were measured."""


class BehaviourPolicy:
    """A stochastic actor that numpy runs.

    Attributes:
        record: Where it came from and how good it is.
        act_dim: Number of action components; each lies in [-1, 1].
    """

    def __init__(
        self,
        record: PolicyRecord,
        weights: list[np.ndarray],
        biases: list[np.ndarray],
        log_std: np.ndarray,
    ) -> None:
        self.record = record
        self.act_dim = int(log_std.shape[0])
        # (in, out), C-ordered, so that one call is one matrix product.
        self.weights = [np.ascontiguousarray(w.T, dtype=np.float32) for w in weights]
        self.biases = [b.astype(np.float32) for b in biases]
        self.log_std = log_std.astype(np.float32)
        self._std = np.exp(self.log_std)
        self._activation = _HIDDEN[record.activation]

    def draw_noise(self, generator: np.random.Generator, num_steps: int) -> np.ndarray:
        """Draw the noise of `num_steps` actions: (num_steps, A) standard normal, or uniform for the random policy."""
        if not self.weights:
            return generator.uniform(-1.0, 1.0, (num_steps, self.act_dim)).astype(np.float32)
        return generator.standard_normal((num_steps, self.act_dim), dtype=np.float32)

    def act(self, observations: np.ndarray, rng_noise: np.ndarray) -> np.ndarray:
        """Choose actions.

        Args:
            observations: (E, S), raw.
            rng_noise: (E, A) from `draw_noise`.

        Returns:
            (E, A) float32 in [-1, 1].
        """
        if not self.weights:
            return rng_noise
        noise = self._std * rng_noise
        return np.clip(self.mean(observations) + noise, -1.0, 1.0)

    def mean(self, observations: np.ndarray) -> np.ndarray:
        """Return the mean action (E, A) before noise and clipping, for observations (E, S)."""
        hidden = observations.astype(np.float32)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = self._activation(hidden @ weight + bias)
        return hidden @ self.weights[-1] + self.biases[-1]


def uniform_policy(act_dim: int, record: PolicyRecord) -> BehaviourPolicy:
    """Return the policy whose actions are uniform over [-1, 1] in each of `act_dim` components."""
    return BehaviourPolicy(record, [], [], np.zeros(act_dim, np.float32))

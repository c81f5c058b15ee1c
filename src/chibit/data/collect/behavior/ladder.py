"""Behavior policies: small stochastic actors, a ladder from random to expert in one file an environment.

An actor is an MLP with the observation normalization folded into its first layer. Its action is
`clip(mean(observation) + exp(log_std) * noise, -1, 1)`; the random policy is uniform over the action box.
Only numpy is used, so that data can be collected without torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from chibit.core.config import from_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.files import nearest, write_atomic
from chibit.core.tensors import read_safetensors
from chibit.environments.registry import OWN_IDS

POLICY_FOLDER = Path(__file__).parent / "policies"
_FORMAT = "chibit behaviour ladder 1"


@dataclass(frozen=True, kw_only=True)
class PolicyRecord:
    """What is known about one behavior policy."""

    name: str
    """`random`, `step-000040960` and so on, or `expert`."""
    algorithm: str
    """`uniform` (random actions), `ppo`, or `dagger` (distilled from an expert)."""
    train_steps: int
    """Environment steps that its training had seen."""
    activation: str = "relu"
    """Of the hidden layers: `relu` or `tanh`."""
    mean_score: float = 0.0
    """Mean normalized return (0 is D4RL's random, 100 its expert), measured with the action noise on."""
    std_score: float = 0.0
    """Population standard deviation of the normalized return over episodes."""
    num_episodes: int = 0
    """Episodes that were measured; with none, the scores mean nothing."""


class BehaviorPolicy:
    """A stochastic actor that numpy runs.

    Attributes:
        record: Where it comes from and how good it is.
        act_dim: Number of action components, each in [-1, 1].
        layers: Weight (out, in) and bias (out,) of each layer, the last one giving the mean action; none for
            the random policy.
        log_std: (A,) natural logarithm of the standard deviation of the action noise.
    """

    def __init__(
        self, record: PolicyRecord, layers: Sequence[tuple[np.ndarray, np.ndarray]], log_std: np.ndarray
    ) -> None:
        self.record = record
        self.act_dim = int(log_std.shape[0])
        self.layers = list(layers)
        self.log_std = log_std
        # Transposed and contiguous: one layer is then one plain matrix product.
        self._weights = [np.ascontiguousarray(weight.T, dtype=np.float32) for weight, _ in layers]
        self._biases = [bias.astype(np.float32) for _, bias in layers]
        self._std = np.exp(log_std.astype(np.float32))

    def draw_noise(self, generator: np.random.Generator, num_steps: int) -> np.ndarray:
        """Draw what `act` needs for `num_steps` actions, (num_steps, A): normal, or uniform if random."""
        shape = (num_steps, self.act_dim)
        if not self._weights:
            return generator.uniform(-1.0, 1.0, shape).astype(np.float32)
        return generator.standard_normal(shape, dtype=np.float32)

    def act(self, observations: np.ndarray, rng_noise: np.ndarray) -> np.ndarray:
        """Choose actions.

        Args:
            observations: (E, S), raw.
            rng_noise: (E, A) float32 from `draw_noise`.

        Returns:
            (E, A) float32 in [-1, 1].
        """
        if not self._weights:
            return rng_noise
        actions: np.ndarray = np.clip(self.mean(observations) + self._std * rng_noise, -1.0, 1.0)
        return actions

    def mean(self, observations: np.ndarray) -> np.ndarray:
        """Return the action before noise and clipping, (E, A) float32, for raw observations (E, S)."""
        hidden = observations.astype(np.float32)
        for weight, bias in zip(self._weights[:-1], self._biases[:-1], strict=True):
            hidden = hidden @ weight + bias
            hidden = np.tanh(hidden) if self.record.activation == "tanh" else np.maximum(hidden, 0.0)
        return hidden @ self._weights[-1] + self._biases[-1]


def random_policy(act_dim: int, **measured: Any) -> BehaviorPolicy:
    """Return the policy with uniform actions; `measured` are score fields of its record."""
    record = PolicyRecord(name="random", algorithm="uniform", train_steps=0, **measured)
    return BehaviorPolicy(record, [], np.zeros(act_dim, np.float32))


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The behavior policies of one environment: random, the snapshots of one training run, and an expert."""

    env_name: str
    env_id: str
    physics: dict[str, Any]
    """What the policies were trained and measured with, see `chibit.environments.make.physics_record`."""
    policies: tuple[BehaviorPolicy, ...]
    """Random, then snapshots in training order up to the medium policy, then the expert."""

    @property
    def random(self) -> BehaviorPolicy:
        """Uniform random actions."""
        return self.policies[0]

    @property
    def medium(self) -> BehaviorPolicy:
        """The last snapshot: a policy about a third to half as good as an expert."""
        return self.policies[-2]

    @property
    def expert(self) -> BehaviorPolicy:
        """The best policy."""
        return self.policies[-1]

    @property
    def replay(self) -> tuple[BehaviorPolicy, ...]:
        """Random to medium in training order: who filled the replay buffer of a run that reached medium."""
        return self.policies[:-1]


def save_ladder(ladder: Ladder, path: Path) -> None:
    """Write a ladder as one safetensors file, its records as JSON in the header."""
    tensors: dict[str, np.ndarray] = {}
    for policy in ladder.policies:
        name = policy.record.name
        tensors[f"{name}/log_std"] = policy.log_std
        for i, (weight, bias) in enumerate(policy.layers):
            tensors[f"{name}/{i}/weight"], tensors[f"{name}/{i}/bias"] = weight, bias
    header = {
        "env_name": ladder.env_name,
        "env_id": ladder.env_id,
        "physics": ladder.physics,
        "policies": [asdict(policy.record) for policy in ladder.policies],
    }
    write_atomic(path, save(tensors, metadata={"format": _FORMAT, "ladder": json.dumps(header)}))


def read_ladder(path: Path) -> Ladder:
    """Read a ladder file.

    Raises:
        DamagedFileError: The file is missing, not a safetensors file, or not a ladder.
    """
    tensors, metadata = read_safetensors(path, "numpy", kind=DamagedFileError)
    if metadata.get("format") != _FORMAT:
        raise DamagedFileError(f"{path}: format {metadata.get('format')!r}, expected {_FORMAT!r}")
    try:
        header = json.loads(metadata["ladder"])
        records = [from_json(PolicyRecord, record, "policy") for record in header["policies"]]
        policies = tuple(_assemble(record, tensors) for record in records)
        return Ladder(
            env_name=header["env_name"], env_id=header["env_id"], physics=header["physics"], policies=policies
        )
    except (KeyError, ValueError) as error:
        raise DamagedFileError(f"{path}: incomplete ladder of behavior policies ({error})") from error


@lru_cache
def load_ladder(env_name: str) -> Ladder:
    """Load the shipped ladder of `hopper`, `halfcheetah` or `walker2d`.

    Raises:
        InputError: No ladder has that name.
    """
    if env_name not in OWN_IDS:
        hint = nearest(env_name, OWN_IDS) or f"; known are {', '.join(OWN_IDS)}"
        raise InputError(f"no behavior policies for {env_name!r}{hint}")
    return read_ladder(POLICY_FOLDER / f"{env_name}.safetensors")


def _assemble(record: PolicyRecord, tensors: dict[str, np.ndarray]) -> BehaviorPolicy:
    count = sum(key.startswith(f"{record.name}/") and key.endswith("/weight") for key in tensors)
    layers = [
        (tensors[f"{record.name}/{i}/weight"], tensors[f"{record.name}/{i}/bias"]) for i in range(count)
    ]
    return BehaviorPolicy(record, layers, tensors[f"{record.name}/log_std"])

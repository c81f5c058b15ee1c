"""What is learned of a log once, tested on held-out episodes, and kept for every policy that is judged."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from chibit.core.config import Checked, from_json, read_json, to_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.fields import Count, Seed
from chibit.core.files import atomic_folder, write_atomic
from chibit.core.home import home_folder
from chibit.core.memory import read_whole
from chibit.core.progress import step_bar
from chibit.data.dataset import TrajectoryDataset
from chibit.judging.clone import Clone
from chibit.judging.judgement import Endings, SelfTest
from chibit.judging.networks import suited_steps
from chibit.judging.steps import Steps, read_steps
from chibit.judging.world import World, WorldConfig

log = logging.getLogger(__name__)

SCHEMA = 3
"""Raised when the same data would give another model."""
LENGTHS = (1, 2, 5, 10, 25, 50, 100)
"""Steps over which the model is compared with held-out episodes."""
_NUM_STRETCHES = 128
"""For each member."""
_MOST_RESIDUALS = 20_000
_MODEL, _MANIFEST = "model.safetensors", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class FitConfig(Checked):
    """What is learned of a log."""

    world: WorldConfig = WorldConfig()
    clone_steps: Count = 3000
    """Gradient steps of the clone at most."""
    seed: Seed = 0
    """Of weights, batches, and what the model is tested on."""

    def num_steps(self, num_logged: int) -> int:
        """Gradient steps of model and clone for a log of that many steps."""
        return sum(suited_steps(most, num_logged) for most in (self.world.num_steps, self.clone_steps))


@dataclass(frozen=True, eq=False)
class FittedLog:
    """Model and clone of a log."""

    world: World
    clone: Clone
    self_test: SelfTest


def fit_log(
    train: TrajectoryDataset,
    held_out: TrajectoryDataset,
    config: FitConfig,
    *,
    cache: str | Path | None = None,
    progress: bool = False,
) -> FittedLog:
    """Learn a model and a clone of a log, or take those that were learned before.

    Args:
        train: what is learned from.
        held_out: what the model is tested on.
        config: settings; the same ones give the same model to the bit, on one machine.
        cache: folder of what is kept; see `home_folder`.
        progress: show what is learned on standard error, with the time left.

    Raises:
        DivergenceError: if nothing can be learned from the log.
        ResourceError: if the model cannot be kept, or its data do not fit into memory.
    """
    key = _key(train, held_out, config)
    folder = home_folder(cache) / "judges" / key[:16]
    if folder.exists():
        try:
            return _load(folder, train, config, key)
        except (DamagedFileError, InputError) as error:
            log.warning("%s; it is learned again", error)
    fitted = _fit(train, held_out, config, progress)
    _keep(folder, fitted, key)
    return fitted


class Tape:
    """Plays recorded actions, whatever it sees."""

    def __init__(self, actions: np.ndarray) -> None:
        """Actions (E, T, A), or (E, T) where they are discrete."""
        self._actions = actions

    def reset(self, num_envs: int) -> None:
        """Begin with the first ones."""
        self._step = 0

    def act(self, observations: np.ndarray) -> np.ndarray:
        """The next ones."""
        return np.asarray(self._actions[:, self._step])

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Go on."""
        self._step += 1


def open_loop(
    world: World, dataset: TrajectoryDataset, residuals: np.ndarray, length: int, seed: int
) -> tuple[float, float] | None:
    """R2 of the sum of rewards when the model is given logged actions, from logged states.

    Beside it the R2 that the model would have were it right: with sums that it brings itself when each step
    has the noise of a logged one. Nothing ends: all stretches lie within episodes.

    Args:
        world: the model.
        dataset: episodes that it was not learned from.
        residuals: (N, S + 1) what it leaves unexplained of the steps that it was learned from.
        length: steps of a stretch.
        seed: of the choice of stretches, and of noise.

    Returns:
        Both; None where no episode is that long, or all stretches bring the same.
    """
    generator = np.random.default_rng([seed, length])
    starts, lengths = dataset.episode_starts[:-1], dataset.episode_lengths
    long_enough = np.flatnonzero(lengths >= length)
    if not len(long_enough):
        return None
    episodes = generator.choice(long_enough, world.config.num_members * _NUM_STRETCHES)
    first = starts[episodes] + generator.integers(0, lengths[episodes] - length + 1)
    rows = first[:, None] + np.arange(length)
    logged = dataset.rewards[rows].sum(1, dtype=np.float64)
    if np.ptp(logged) <= 1e-6 * np.abs(logged).max():
        return None

    def play(noise: Callable[[], np.ndarray] | None) -> np.ndarray:
        tape, begin = Tape(dataset.actions[rows]), dataset.observations[first]
        return world.play(tape, begin, horizon=length, discount=1.0, ends=False, noise=noise).returns

    played = play(None)
    possible = play(lambda: residuals[generator.integers(0, len(residuals), len(rows))])
    return _explained(logged, played), _explained(possible, played)


def _explained(found: np.ndarray, predicted: np.ndarray) -> float:
    """R2; 1 where nothing varies and it is met."""
    missed, varied = ((found - predicted) ** 2).sum(), ((found - found.mean()) ** 2).sum()
    return float(1 - missed / varied) if varied > 0 else float(missed == 0)


def _key(train: TrajectoryDataset, held_out: TrajectoryDataset, config: FitConfig) -> str:
    spec = train.spec
    parts = {
        "schema": SCHEMA,
        "data": [train.content_hash, held_out.content_hash],
        "bounds": [spec.action_low, spec.action_high],
        "config": to_json(config),
    }
    # Described beside the data, and not by their hash.
    beside = {"num_actions": spec.num_actions, "state_offset": spec.state_offset}
    parts |= {name: value for name, value in beside.items() if value}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _build(train: TrajectoryDataset, config: FitConfig) -> tuple[World, Clone]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        ends_by_change = train.final_observations is not None
        return World(train.spec, config.world, ends_by_change=ends_by_change), Clone(train.spec)


def _fit(
    train: TrajectoryDataset, held_out: TrajectoryDataset, config: FitConfig, progress: bool
) -> FittedLog:
    world, clone = _build(train, config)
    steps = read_steps(train)
    of_world, of_clone = (np.random.default_rng([config.seed, use]) for use in (0, 1))
    number = config.num_steps(train.num_steps)
    with step_bar(f"learning a model of {train.spec.name}", progress, number) as advance:
        world.fit(steps, of_world, advance)
        clone.fit(steps, world.scales, of_clone, num_steps=config.clone_steps, advance=advance)
    return FittedLog(world, clone, self_test_of(world, steps, held_out, config.seed))


def self_test_of(world: World, steps: Steps, held_out: TrajectoryDataset, seed: int) -> SelfTest:
    """Compare a model that was learned from some steps with episodes that it was not learned from."""
    few = np.random.default_rng([seed, 3]).permutation(len(steps.rewards))[:_MOST_RESIDUALS]
    residuals = world.residuals(steps.part(np.sort(few)))
    tested = {length: open_loop(world, held_out, residuals, length, seed) for length in LENGTHS}
    found = {length: fits for length, fits in tested.items() if fits is not None}
    held_out_steps = read_steps(held_out)
    foreseen, false = world.endings(held_out_steps)
    return SelfTest(
        step_error=world.error(held_out_steps),
        lengths=tuple(found),
        fits=tuple(fit for fit, _ in found.values()),
        ceilings=tuple(ceiling for _, ceiling in found.values()),
        endings=Endings(logged=int(held_out_steps.terminations.sum()), foreseen=foreseen, false=false),
    )


def _modules(world: World, clone: Clone) -> nn.ModuleDict:
    return nn.ModuleDict({"world": world, "clone": clone})


def _keep(folder: Path, fitted: FittedLog, key: str) -> None:
    weights = safetensors.torch.save(_modules(fitted.world, fitted.clone).state_dict())
    self_test = to_json(fitted.self_test)
    manifest = {
        "schema": SCHEMA,
        "key": key,
        "sha256": _digest(weights, self_test),
        "self_test": self_test,
    }
    with atomic_folder(folder, replace=True) as temporary:
        write_atomic(temporary / _MODEL, weights)
        write_atomic(temporary / _MANIFEST, json.dumps(manifest, indent=1, allow_nan=False))


def _load(folder: Path, train: TrajectoryDataset, config: FitConfig, key: str) -> FittedLog:
    """Open a kept model; UserError if it is not whole."""
    manifest = read_json(folder / _MANIFEST)
    weights = read_whole(folder / _MODEL, "remove the folder")
    if not isinstance(manifest, dict) or manifest.get("key") != key:
        raise DamagedFileError(f"{folder / _MANIFEST}: is not that of this model")
    if _digest(weights, manifest.get("self_test")) != manifest.get("sha256"):
        raise DamagedFileError(f"{folder}: content does not match the SHA-256 in {_MANIFEST}")
    world, clone = _build(train, config)
    _modules(world, clone).load_state_dict(safetensors.torch.load(weights))
    return FittedLog(world, clone, from_json(SelfTest, manifest["self_test"], str(folder / _MANIFEST)))


def _digest(weights: bytes, self_test: Any) -> str:
    return hashlib.sha256(weights + json.dumps(self_test).encode()).hexdigest()

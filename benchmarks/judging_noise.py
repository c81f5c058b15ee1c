"""Judgements on logs of noisy made-up processes, whose policies have known returns.

    python benchmarks/judging_noise.py [--logs 3] [--processes plant machine bids confounded]

Four processes: a plant whose levels are disturbed, a machine that breaks when it runs away, bids that win by
chance, and one of which those who acted saw more than the log holds. Policies are written by hand, one with
noise makes the log. Printed are policies with a number, how many true returns the spread of these holds, and
pairs that were told apart, and rightly.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np

import chibit
from chibit.judging.judge import Judge
from chibit.judging.verdict import compare

Act = Callable[[np.ndarray, np.random.Generator], np.ndarray]
TRUE_EPISODES = 2000


class Process(ABC):
    """Many episodes of one process in lockstep; states (E, S), actions (E, A)."""

    length: int
    episodes: int
    policies: Mapping[str, Act]

    @abstractmethod
    def begin(self, number: int, generator: np.random.Generator) -> np.ndarray:
        """First states."""

    @abstractmethod
    def logged(self, states: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Actions of who made the log."""

    @abstractmethod
    def step(
        self, states: np.ndarray, actions: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next states, rewards (E,), and whether episodes are terminated (E,)."""


class Plant(Process):
    """Two levels are to be at zero; both are disturbed."""

    length, episodes = 60, 60
    policies = {
        "gain 1": lambda s, _: np.clip(-s, -1, 1),
        "gain 0.3": lambda s, _: np.clip(-0.3 * s, -1, 1),
        "nothing": lambda s, _: np.zeros_like(s),
        "shaky": lambda s, g: np.clip(-s + 0.6 * g.normal(size=s.shape), -1, 1),
    }

    def begin(self, number, generator):
        return generator.normal(0, 0.5, (number, 2))

    def logged(self, states, generator):
        return np.clip(-0.6 * states + 0.4 * generator.normal(size=states.shape), -1, 1)

    def step(self, states, actions, generator):
        first, second = states.T
        following = np.stack(
            [0.95 * first + 0.3 * actions[:, 0] + 0.1 * second, 0.9 * second + 0.25 * actions[:, 1]], 1
        )
        rewards = 1 - (states**2).sum(1) - 0.05 * (actions**2).sum(1)
        return following + generator.normal(0, 0.05, states.shape), rewards, np.zeros(len(states), bool)


class Machine(Process):
    """Position and speed of what runs away by itself, and breaks beyond 2."""

    length, episodes = 100, 80
    policies = {
        "held": lambda s, _: np.clip(-s[:, :1] - 1.5 * s[:, 1:], -1, 1),
        "held loosely": lambda s, _: np.clip(-0.5 * s[:, :1] - 0.8 * s[:, 1:], -1, 1),
        "nothing": lambda s, _: np.zeros((len(s), 1)),
        "at random": lambda s, g: g.uniform(-1, 1, (len(s), 1)),
    }

    def begin(self, number, generator):
        return np.stack([generator.uniform(-1, 1, number), generator.normal(0, 0.2, number)], 1)

    def logged(self, states, generator):
        held = -0.5 * states[:, :1] - 0.8 * states[:, 1:]
        return np.clip(held + 0.8 * generator.normal(size=held.shape), -1, 1)

    def step(self, states, actions, generator):
        position, speed = states.T
        speed = 0.95 * speed + 0.1 * position + 0.2 * actions[:, 0] + 0.1 * generator.normal(size=len(states))
        position = position + 0.3 * speed
        return np.stack([position, speed], 1), 1 - 0.1 * actions[:, 0] ** 2, np.abs(position) > 2


class Bids(Process):
    """Bids of a day on what is worth 1.08 of the market's price; wins are a matter of luck."""

    length, episodes = 48, 80
    policies = {
        "0.9 of the price": lambda s, _: 0.9 * s,
        "0.6 of the price": lambda s, _: 0.6 * s,
        "1.3 of the price": lambda s, _: 1.3 * s,
        "always alike": lambda s, _: np.full_like(s, 1e4),
    }

    def begin(self, number, generator):
        return generator.uniform(0.6e4, 1.4e4, (number, 1))

    def logged(self, states, generator):
        return 0.9 * states * np.exp(0.25 * generator.normal(size=states.shape))

    def step(self, states, actions, generator):
        wins = generator.poisson(4 * (1 - np.exp(-actions[:, 0] / states[:, 0])))
        following = np.clip(states * np.exp(0.05 * generator.normal(size=states.shape)), 0.3e4, 3e4)
        return following, wins * (1.08 * states[:, 0] - 0.6 * actions[:, 0]), np.zeros(len(states), bool)


class Confounded(Process):
    """What helps in one half of the episodes harms in the other; only who made the log knew which it was."""

    length, episodes = 40, 60
    policies = {
        "push": lambda s, _: np.full((len(s), 1), 0.6),
        "pull": lambda s, _: np.full((len(s), 1), -0.6),
        "nothing": lambda s, _: np.zeros((len(s), 1)),
        "toss a coin": lambda s, g: 0.6 * g.choice([-1.0, 1.0], (len(s), 1)),
    }

    def begin(self, number, generator):
        self.sides = generator.choice([-1.0, 1.0], number)
        return generator.normal(0, 0.3, (number, 1))

    def logged(self, states, generator):
        return np.clip(0.6 * self.sides[:, None] + 0.3 * generator.normal(size=states.shape), -1, 1)

    def step(self, states, actions, generator):
        action = actions[:, 0]
        rewards = 1 + self.sides * action - 0.2 * action**2 - states[:, 0] ** 2 + 0.5 * self.sides
        following = 0.8 * states + 0.1 * actions + generator.normal(0, 0.1, states.shape)
        return following, rewards, np.zeros(len(states), bool)


PROCESSES = {"plant": Plant, "machine": Machine, "bids": Bids, "confounded": Confounded}


def make_log(process: Process, generator: np.random.Generator, name: str) -> chibit.TrajectoryDataset:
    """Episodes as they are logged: end to end, those that are not terminated are cut."""
    states = process.begin(process.episodes, generator)
    live, steps = np.ones(process.episodes, bool), []
    for _ in range(process.length):
        actions = process.logged(states, generator)
        following, rewards, over = process.step(states, actions, generator)
        steps.append((states, actions, rewards, following, over, live))
        live, states = live & ~over, following
    observations, actions, rewards, following, over, live = (
        np.stack(part, 1) for part in zip(*steps, strict=True)
    )
    cut = np.zeros_like(over)
    cut[:, -1] = ~over[:, -1]
    return chibit.from_arrays(
        observations=observations[live], actions=actions[live], rewards=rewards[live],
        terminations=over[live], truncations=cut[live], next_observations=following[live], name=name,
    )  # fmt: skip


def true_return(process: Process, act: Act) -> float:
    """Mean return of a policy."""
    generator = np.random.default_rng(7)
    states, live, total = process.begin(TRUE_EPISODES, generator), np.ones(TRUE_EPISODES, bool), 0.0
    for _ in range(process.length):
        states, rewards, over = process.step(states, act(states, generator), generator)
        total += float(rewards[live].sum())
        live &= ~over
    return total / TRUE_EPISODES


class ByHand:
    """A policy as the judge takes it."""

    def __init__(self, act: Act) -> None:
        self._act = act

    def reset(self, num_envs: int) -> None:
        self._generator = np.random.default_rng(5)

    def act(self, observations: np.ndarray) -> np.ndarray:
        return self._act(observations, self._generator)

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """It remembers nothing."""


def judged(name: str, seed: int) -> tuple[int, int, int, int]:
    """Numbers, those whose spread holds the truth, pairs told apart, and rightly; of one log."""
    process = PROCESSES[name]()
    judge = Judge(make_log(process, np.random.default_rng([seed, 1]), f"{name}-{seed}"))
    truth = {key: true_return(process, act) for key, act in process.policies.items()}
    judgements = [judge(ByHand(act), name=key) for key, act in process.policies.items()]
    kept = [one for one in judgements if one.total is not None]
    held = sum(one.total.low <= truth[one.name] <= one.total.high for one in kept)
    clear = [found for pair in combinations(kept, 2) if (found := compare(*pair)) and found.is_clear]
    right = sum(truth[one.better] > truth[one.other] for one in clear)
    for one in judgements:
        print(
            f"  true {truth[one.name]:,.1f}, in the model {one.in_model.total}; {one.reasons or 'a number'}"[
                :200
            ]
        )
    for note in judge.log.notes:
        print(f"  {note}"[:200])
    return len(kept), held, len(clear), right


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", nargs="+", choices=PROCESSES, default=list(PROCESSES))
    parser.add_argument("--logs", type=int, default=3, help="of each process")
    arguments = parser.parse_args()
    for name in arguments.processes:
        found = np.sum([judged(name, seed) for seed in range(arguments.logs)], axis=0)
        number = arguments.logs * len(PROCESSES[name].policies)
        kept, held, clear, right = found
        print(
            f"{name}: {kept} of {number} have a number, {held} hold the truth; "
            f"{clear} pairs told apart, {right} rightly"
        )


if __name__ == "__main__":
    main()

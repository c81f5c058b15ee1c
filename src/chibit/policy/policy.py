"""A trained policy, to deploy or to share: load it, reset it, act, and tell it what came of the action.

Dimensions: E episodes acted in at once · S state_dim · A act_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from chibit.agents.base import Agent
from chibit.agents.base import Policy as ActingPolicy
from chibit.core.errors import InputError
from chibit.core.shared_folder import what_is
from chibit.data.dataset import DatasetSpec
from chibit.models.hub import model_folder
from chibit.policy.card import PolicyScore, policy_scores
from chibit.policy.export import export_policy
from chibit.policy.format import checked_target, load_agent, read_policy
from chibit.policy.run import load_run_agent


class Policy:
    """Acts in one environment or in several at once, with what an agent has learned.

    Call `reset`, then `act` and `observe` in turn. It is a policy as `chibit.evaluate` takes them.

    Attributes:
        spec: sizes, normalization, environment and score reference of the data it was trained on.
        target_return: raw return it asks for; None where the method takes none.
        scores: evaluations that came with it.
    """

    def __init__(
        self,
        agent: Agent,
        spec: DatasetSpec,
        *,
        target_return: float | None = None,
        scores: Sequence[PolicyScore] = (),
    ) -> None:
        """Wrap an agent.

        Args:
            agent: acts with its current weights.
            spec: of the data it was trained on.
            target_return: raw return to ask for; None is the data's first default where the method takes one.
            scores: evaluations to keep with it.

        Raises:
            InputError: for a target return that is not finite, or given to a method that takes none.
        """
        self.agent, self.spec, self.scores = agent, spec, tuple(scores)
        self.target_return = checked_target(agent, spec, target_return)
        self._acting: ActingPolicy = agent.policy(
            None if self.target_return is None else [self.target_return]
        )
        self._num_envs = 0
        self._must_observe = False

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, target_return: float | None = None, device: str = "cpu"
    ) -> Policy:
        """Load a policy.

        Args:
            source: a folder that `save_pretrained` or `chibit export` wrote, a run's (its last checkpoint
                acts), or an id on the Hub.
            target_return: raw return to ask for in place of the saved one, or of the run's first.
            device: "cpu", "cuda", "cuda:N" or "auto".

        Raises:
            InputError: if there is no such policy, or its method or configuration is unknown.
            DamagedFileError: if its files are damaged or do not fit together.
            ResourceError: if the Hub cannot be reached.
        """
        folder = model_folder(str(source), flag="the folder that chibit export wrote")
        if what_is(folder) == "a run":
            run = load_run_agent(folder, device=device)
            wanted = run.target_return if target_return is None else target_return
            scores = policy_scores(run.evaluations, run.spec)
            return cls(run.agent, run.spec, target_return=wanted, scores=scores)
        saved = read_policy(folder)
        agent = load_agent(saved, folder, device)
        wanted = saved.target_return if target_return is None else target_return
        return cls(agent, saved.spec, target_return=wanted, scores=saved.scores)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the policy into a folder, beside what is there; raises as `export_policy`."""
        return export_policy(
            self.agent, self.spec, folder, target_return=self.target_return, scores=self.scores
        )

    def reset(self, num_envs: int = 1) -> None:
        """Begin episodes.

        Args:
            num_envs: E, how many at once.
        """
        if num_envs < 1:
            raise InputError(f"num_envs is {num_envs}, expected at least 1")
        self._acting.reset(num_envs)
        self._num_envs, self._must_observe = num_envs, False

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Choose actions.

        Args:
            observations: (E, S) as the environment gives them, or (S,) where E is 1; images (E, C, H, W).

        Returns:
            (E, A) float32, or (E,) int64 where actions are discrete; without the first axis if the
            observations had none.

        Raises:
            InputError: before `reset`, for another shape, or if the last actions were not observed.
        """
        given = np.asarray(observations)
        single = given.ndim == len(self.spec.observation_shape)
        expected = (self._num_envs, *self.spec.observation_shape)
        if not self._num_envs:
            raise InputError("act: call reset first")
        if self._must_observe:
            raise InputError("act: tell the policy what the last actions brought: observe(rewards, dones)")
        if (given[None] if single else given).shape != expected:
            raise InputError(f"act: observations have shape {given.shape}, expected {expected}")
        actions = self._acting.act(given[None] if single else given)
        # A method that asks for a return loses count of it if a reward is left out; the others do not mind.
        self._must_observe = self.agent.is_return_conditioned
        return actions[0] if single else actions

    def observe(
        self,
        rewards: np.ndarray | float,
        dones: np.ndarray | bool,
        actions: np.ndarray | float | None = None,
    ) -> None:
        """Take in what the last actions brought.

        Args:
            rewards: (E,) raw rewards, or one number.
            dones: (E,) bool, True from the step on which an episode ended, or one value.
            actions: as `act` gives them, what was really done where it was something else: after a filter,
                or by somebody else. None is what `act` said.

        Raises:
            InputError: for another shape, or an action that is not finite.
        """
        shape = (self._num_envs,)
        given = np.atleast_1d(np.asarray(rewards, np.float64)), np.atleast_1d(np.asarray(dones, bool))
        for name, array in zip(("rewards", "dones"), given, strict=True):
            if array.shape != shape:
                raise InputError(f"observe: {name} have shape {array.shape}, expected {shape}")
        self._acting.observe(*given, None if actions is None else self._done(actions))
        self._must_observe = False

    def _done(self, actions: np.ndarray | float) -> np.ndarray:
        """(E, A) or (E,) actions that were taken."""
        shape = (self._num_envs, *([self.spec.act_dim] if self.spec.num_actions is None else []))
        done = np.asarray(actions)
        if done.ndim == len(shape) - 1:
            done = done[None]
        if done.shape != shape or not np.isfinite(done).all():
            raise InputError(f"observe: actions have shape {done.shape}, expected finite ones of {shape}")
        return done


__all__ = ["Policy", "PolicyScore", "export_policy"]

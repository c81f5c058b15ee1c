"""Judging policies by playing them in a model of the log.

Dimensions: N steps · E episodes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chibit.agents.base import Policy as ActingPolicy
from chibit.core.acting import EpisodePolicy, unlimited
from chibit.core.config import Checked
from chibit.core.errors import InputError
from chibit.core.fields import BelowOne, Count, Fraction, refusal
from chibit.core.formatting import count, format_number
from chibit.core.progress import step_bar
from chibit.data.dataset import TrajectoryDataset
from chibit.data.load import given_dataset
from chibit.data.statistics import spread_of
from chibit.judging.estimators import OtherEstimates, other_estimates
from chibit.judging.fitting import FitConfig, FittedLog, fit_log
from chibit.judging.judgement import AtLoggedSteps, Estimate, Judgement, LogSummary, PlayedInModel
from chibit.judging.networks import count_nothing
from chibit.judging.profile import action_histograms, profile_of
from chibit.judging.replay import action_error, replay
from chibit.policy.policy import Policy

LEAST_EPISODES = 10
"""Below it a held-out episode or two decide everything."""
_REPLAYED, _BEST = 20, 0.1
_PERSISTENT, _UNEXPLAINED = 0.25, 0.05
"""Correlation of what is unexplained of successive actions from which on a note says so, where it is more
than this share of the actions' variance."""
_NOISY = 0.2
"""Share of the variance of rewards taken for noise from which on a note says so."""
_RARE = 0.01
"""Share of the stretches with the least rewards, which may be freaks."""
_STRETCH = 5
"""Steps of a stretch."""
_SECONDS_A_FIT_STEP, _SECONDS_A_MODEL_STEP, _USUAL_WIDTH = 0.006, 0.002, 300
"""Rough, on one core of a server: a gradient step of model or clone, a step of all episodes in the model;
twice that for so many observed numbers and choices."""
_METHODS = {
    "reset": ("num_envs", 1),
    "act": ("observations", 1),
    "observe": ("rewards, dones, actions=None", 3),
}
"""Of a policy, with their arguments, and how many they are called with."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(Checked):
    """How policies are judged."""

    fit: FitConfig = FitConfig()
    held_out_share: Fraction = 0.2
    """Of the episodes, where none are given: the model is tested and action errors are measured on them."""
    discount: BelowOne = 0.99
    """Of values; a return far beyond the model's horizon is worth less than a value."""
    horizon: Count | None = None
    """Steps after which an episode in the model is cut; None is the data's time limit."""
    rollouts_per_member: Count = 8


class Judge:
    """Judges policies on one log.

    The same policy twice is judged alike, also one that draws its actions, where its `reset` takes a seed as
    those of this package do.
    """

    def __init__(
        self,
        dataset: TrajectoryDataset | str | Path,
        *,
        held_out: TrajectoryDataset | str | Path | None = None,
        config: JudgeConfig | None = None,
        cache: str | Path | None = None,
        progress: bool = False,
    ) -> None:
        """Learn a model of the log, or take the one that was learned before.

        Args:
            dataset: the log, or a name or path of it.
            held_out: episodes that neither model nor policies learned from; None sets a share of `dataset`
                aside.
            config: settings.
            cache: where models are kept; see `chibit.core.home.home_folder`.
            progress: show what is done on standard error, with the time left.

        Raises:
            InputError: for images, fewer than 10 episodes, or rewards that are all equal.
            DivergenceError: if nothing can be learned from the log.
            ResourceError: if it does not fit into memory, or the model cannot be kept.
        """
        self.config = config = config or JudgeConfig()
        if not isinstance(config, JudgeConfig):
            raise refusal("config", config, "a JudgeConfig")
        dataset = given_dataset(dataset, "dataset")
        held_out = None if held_out is None else given_dataset(held_out, "held_out")
        check_log(dataset, held_out)
        self._train = dataset
        if held_out is None:
            self._train, held_out = dataset.held_out_split(config.held_out_share, config.fit.seed)
        for part in (self._train, held_out):
            _check_known(part)
        self._held_out = held_out
        self._progress = progress
        self.fitted: FittedLog = fit_log(self._train, held_out, config.fit, cache=cache, progress=progress)
        """Model and clone."""
        generator = np.random.default_rng([config.fit.seed, 2])
        number = config.rollouts_per_member * config.fit.world.num_members
        first = self._train.episode_starts[generator.integers(0, self._train.num_episodes, number)]
        self._starts = np.asarray(self._train.observations[first])
        order = generator.permutation(held_out.num_episodes)
        self._replayed = np.sort(order[:_REPLAYED])
        best = np.argsort(-held_out.episode_returns, kind="stable")
        self._best = best[: max(1, min(_REPLAYED, round(_BEST * held_out.num_episodes)))]
        self.horizon = config.horizon or self._train.spec.max_episode_steps
        self._floor = reward_floor(self._train)
        self.log = self._summary()
        """What is known of the log."""

    def __call__(
        self,
        policy: ActingPolicy,
        *,
        name: str = "policy",
        target_return: float | None = None,
        step: int | None = None,
    ) -> Judgement:
        """Judge a policy.

        Args:
            policy: acts in several episodes at once.
            name: of the policy, for tables.
            target_return: raw return that it asks for; a `chibit.Policy` says so itself.
            step: gradient steps that it has learned for; of its run's checkpoint.

        Raises:
            InputError: if it is no policy, or its actions do not fit the data or are not finite.
        """
        _check_policy(policy)
        if isinstance(policy, Policy):
            self._train.spec.require_order_of(policy.spec, "dataset")
            target_return = policy.target_return
        longest = [int(self._held_out.episode_lengths[e].max()) for e in (self._replayed, self._best)]
        number = self.horizon + sum(longest)
        with unlimited(policy), step_bar(f"judging {name}", self._progress, number) as advance:
            played = _Repeatable(policy, self.config.fit.seed, advance)
            return Judgement(
                name=name,
                target_return=target_return,
                in_model=self._play(played),
                at_steps=self._at_steps(played),
                log=self.log,
                step=step,
            )

    def other_estimates(self, policy: ActingPolicy) -> OtherEstimates:
        """Fitted Q evaluation and importance sampling, which mislead: see `chibit.judging.estimators`."""
        with unlimited(policy):
            return other_estimates(
                _Repeatable(policy, self.config.fit.seed),
                self._train,
                self.fitted.clone,
                discount=self.config.discount,
                seed=self.config.fit.seed,
            )

    def _play(self, policy: ActingPolicy) -> PlayedInModel:
        play = self.fitted.world.play(
            policy, self._starts, horizon=self.horizon, discount=self.config.discount
        )
        value, total = (
            Estimate(
                members=tuple(play.by_member(outcomes).tolist()),
                floor=self._floor * float(np.sum(discount ** np.arange(self.horizon))),
            )
            for outcomes, discount in ((play.values, self.config.discount), (play.returns, 1.0))
        )
        return PlayedInModel(
            value=value,
            total=total,
            length=float(play.lengths.mean()),
            disagreement=play.disagreement,
            clipped=play.clipped,
        )

    def _at_steps(self, policy: ActingPolicy) -> AtLoggedSteps:
        replays = [
            replay(policy, self._held_out, episodes.tolist()) for episodes in (self._replayed, self._best)
        ]
        actions = self._train.actions
        scale = spread_of(actions) if actions.ndim == 2 else np.ones(0)
        error, best = (action_error(shown, scale) for shown in replays)
        far = self.fitted.clone.share_far(replays[0].observations, replays[0].chosen)
        chosen = action_histograms(replays[0].chosen, self._train.spec)
        return AtLoggedSteps(error=error, best_error=best, far=far, actions=chosen)

    def _summary(self) -> LogSummary:
        parts = (self._train, self._held_out)
        returns, values = (
            np.concatenate([discounted_returns(part, discount, self.horizon) for part in parts])
            for discount in (1.0, self.config.discount)
        )
        clone = self.fitted.clone
        return LogSummary(
            data=self._train.spec.name,
            num_episodes=len(returns),
            mean_return=float(returns.mean()),
            std_return=float(returns.std(ddof=1)),
            best_return=float(returns.max()),
            mean_value=float(values.mean()),
            lowest_value=float(values.min()),
            best_value=float(values.max()),
            discount=self.config.discount,
            horizon=self.horizon,
            time_limit=self._train.spec.max_episode_steps,
            best_episode=max(float(part.episode_returns.max()) for part in parts),
            self_test=self.fitted.self_test,
            clone=self._play(clone.policy()),
            clone_at_steps=self._at_steps(clone.policy()),
            noise_floor=clone.expected_error(self._held_out.observations),
            notes=tuple(self._notes()),
            profile=profile_of(parts),
        )

    def _notes(self) -> Iterator[str]:
        train, spec = self._train, self._train.spec
        num_cut = int((~train.episode_ends[:, 0]).sum())
        are_single = bool(train.terminations.all())  # decisions after which nothing comes
        if train.final_observations is None and num_cut:
            yield (
                f"what follows the last step of {count(num_cut, 'truncated episode')} is not known: these "
                "steps are left out of the dynamics"
            )
        if train.final_observations is None and num_cut < train.num_episodes and not are_single:
            yield (
                "what the last actions led to is not known: terminations are learned from the state and the "
                "action before them"
            )
        if self.horizon < spec.max_episode_steps:
            yield (
                f"episodes are cut after {count(self.horizon, 'step')} of {spec.max_episode_steps:,}, in the "
                "model and in the log: returns and values are of so many"
            )
        if self.horizon > spec.max_episode_steps:
            yield (
                f"episodes in the model go on for {count(self.horizon, 'step')}, those of the log for "
                f"{spec.max_episode_steps:,} at most: its returns and values are of fewer"
            )
        share, persistence = self.fitted.clone.unexplained(self._held_out)
        if persistence > _PERSISTENT and share > _UNEXPLAINED:
            yield (
                f"what observations do not explain of actions ({share:.0%} of the variance) goes on from "
                f"step to step (correlation {persistence:.2f}): several policies, a memory, a clone that "
                "learns badly, or knowledge that the log lacks; if that moves rewards, no number is right"
            )
        test = self.fitted.self_test
        if test.noise > _NOISY and not test.unfit:
            yield (
                f"up to {test.noise:.0%} of the variance of rewards is taken for noise, as the model leaves "
                "it unexplained where it was learned; a system that it cannot learn looks the same"
            )
        if self.config.horizon is None and spec.env_id is None and not are_single:
            yield (
                f"the time limit is not known: episodes in the model are cut after the log's longest, "
                f"{count(spec.max_episode_steps, 'step')}"
            )


class _Repeatable:
    """A policy whose draws are the same at each reset, and who counts its steps."""

    def __init__(self, policy: ActingPolicy, seed: int, advance: Callable[[], None] = count_nothing) -> None:
        self._policy, self._seed, self._advance = policy, seed, advance

    def reset(self, num_envs: int) -> None:
        """With a seed, where it takes one."""
        if isinstance(self._policy, EpisodePolicy):
            self._policy.reset(num_envs, seed=self._seed)
        else:
            self._policy.reset(num_envs)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """As the policy does."""
        return self._policy.act(observations)

    def observe(self, rewards: np.ndarray, dones: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Pass it on."""
        self._policy.observe(rewards, dones, actions)
        self._advance()


def judge(
    policy: ActingPolicy,
    dataset: TrajectoryDataset | str | Path,
    *,
    held_out: TrajectoryDataset | str | Path | None = None,
    name: str = "policy",
    target_return: float | None = None,
    config: JudgeConfig | None = None,
    cache: str | Path | None = None,
    progress: bool = False,
) -> Judgement:
    """Say what can be said of a policy without a simulator: play it in a model learned from a log.

    The model is learned once for a data set, in seconds to a minute by its size, and kept. To judge several
    policies, call a `Judge` for each.

    Args:
        policy: a `chibit.Policy`, or any object with `reset(num_envs)`, `act(observations)` and
            `observe(rewards, dones, actions=None)`.
        dataset: the log, or a name or path of it.
        held_out: episodes that neither model nor policy learned from; None sets a fifth of `dataset` aside.
        name: of the policy, for tables.
        target_return: raw return that it asks for; a `chibit.Policy` says so itself.
        config: settings.
        cache: where models are kept; see `chibit.core.home.home_folder`.
        progress: show what is done on standard error, with the time left.

    Returns:
        The judgement: its `value` and `total` are None where no number can be given, its `reasons` say why.

    Raises:
        InputError: for images, fewer than 10 episodes, rewards that are all equal, or a policy whose actions
            do not fit the data or are not finite.
        DivergenceError: if nothing can be learned from the log.
        ResourceError: if it does not fit into memory, or the model cannot be kept.
    """
    _check_policy(policy)  # before a model is learned, which takes time
    judges = Judge(dataset, held_out=held_out, config=config, cache=cache, progress=progress)
    return judges(policy, name=name, target_return=target_return)


def rough_seconds(
    dataset: TrajectoryDataset,
    *,
    num_policies: int,
    seconds_an_action: float,
    config: JudgeConfig | None = None,
) -> float:
    """How long one core may take to judge policies on a log, where its model is not there yet.

    Args:
        dataset: what models are learned from.
        num_policies: how many are judged, each at one target return.
        seconds_an_action: that each takes to act once in one episode.
        config: settings.
    """
    config = config or JudgeConfig()
    horizon = config.horizon or dataset.spec.max_episode_steps
    episodes = config.rollouts_per_member * config.fit.world.num_members + _REPLAYED
    spec = dataset.spec
    width = 1 + (spec.state_dim + (spec.num_actions or spec.act_dim)) / _USUAL_WIDTH
    model = _SECONDS_A_FIT_STEP * width * config.fit.num_steps(dataset.num_steps)
    played = (num_policies + 1) * _SECONDS_A_MODEL_STEP * width + num_policies * episodes * seconds_an_action
    return model + horizon * played


def reward_floor(dataset: TrajectoryDataset) -> float:
    """The least that steps of the log bring on average; at most 0 where episodes terminate.

    What lies above it can be lost, so that errors are shares of that. A termination ends all rewards. It is
    the mean over stretches of 5 steps, or of an episode that is shorter, which one in a hundred does not
    reach: a rare penalty is not the price of every step.
    """
    sums = np.concatenate([[0.0], np.cumsum(dataset.rewards, dtype=np.float64)])
    lengths = np.minimum(_STRETCH, np.repeat(dataset.episode_lengths, dataset.episode_lengths))
    begins = np.arange(dataset.num_steps)
    left = np.repeat(dataset.episode_starts[1:], dataset.episode_lengths) - begins
    begins = begins[left >= lengths]
    means = (sums[begins + lengths[begins]] - sums[begins]) / lengths[begins]
    least = float(np.quantile(means, _RARE))
    return min(0.0, least) if dataset.terminations.any() else least


def discounted_returns(dataset: TrajectoryDataset, discount: float, horizon: int) -> np.ndarray:
    """(E,) float64 discounted returns of the first `horizon` steps of the episodes of a log."""
    weights = np.power(discount, dataset.timesteps) * (dataset.timesteps < horizon)
    return np.add.reduceat(dataset.rewards * weights, dataset.episode_starts[:-1])


def _check_policy(policy: object) -> None:
    """Refuse what could not be played: one of the three methods is missing, or takes something else."""
    for name, (arguments, number) in _METHODS.items():
        try:
            inspect.signature(getattr(policy, name)).bind(*range(number))
        except (AttributeError, TypeError, ValueError) as error:
            expected = ", ".join(f"{name}({arguments})" for name, (arguments, _) in _METHODS.items())
            found = f"{type(policy).__name__} has no {name}({arguments})"
            raise InputError(f"policy: {found}; expected an object with {expected}") from error


def _check_known(part: TrajectoryDataset) -> None:
    """Refuse episodes, all or those on one side of the split, of which no step is known to lead anywhere."""
    if (
        part.final_observations is None
        and part.num_steps == part.num_episodes
        and not part.terminations.all()
    ):
        raise InputError(
            f"{part.spec.name}: its episodes are cut after one step and have no next observation, so that "
            "nothing is known of where actions lead; record it (next_observations), say so where one step is "
            "all (terminations), or compare the held-out action errors"
        )


def check_log(dataset: TrajectoryDataset, held_out: TrajectoryDataset | None) -> None:
    """Refuse a log that no model can be learned from.

    Raises:
        InputError: for images, fewer than 10 episodes, rewards that are all equal, steps of which none is
            known to lead anywhere, or held-out episodes of other sizes.
    """
    spec, rewards = dataset.spec, dataset.rewards
    num_episodes = dataset.num_episodes + (0 if held_out is None else held_out.num_episodes)
    if spec.image_shape:
        raise InputError(
            f"{spec.name}: observations are images, of which no model is learned; compare the held-out "
            "action errors that training logs"
        )
    if num_episodes < LEAST_EPISODES:
        raise InputError(
            f"{spec.name}: {count(num_episodes, 'episode')}, expected at least {LEAST_EPISODES} to "
            "learn a model of them and to test it"
        )
    if rewards.min() == rewards.max():
        raise InputError(
            f"{spec.name}: every reward is {format_number(float(rewards[0]))}, on which no model can be "
            "tested; give rewards that say what is wanted"
        )
    _check_known(dataset)
    if held_out is not None:
        held_out.spec.require_fits(spec, "held_out")

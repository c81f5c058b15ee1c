"""What a run will be: its length in passes over the data, its schedules and its time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chibit.core.formatting import count, format_setting, percent, shown_time
from chibit.data.choices import Choice, choices
from chibit.data.copies import share_to_propose
from chibit.data.dataset import TrajectoryDataset
from chibit.environments.kinds import MemoryEnvironment
from chibit.environments.registry import ENVIRONMENTS
from chibit.training.run_config import RunConfig, count_evaluations

MOST_PASSES = 1_000
"""Times that a run may show each logged step before that is said; ours on D4RL's data show it 130 to 630."""


def outlook(config: RunConfig[Any], dataset: TrajectoryDataset) -> tuple[Choice, ...]:
    """What is chosen for a run on a data set, by it and by its length, and how long it may take."""
    given = tuple(config.agent.chosen(dataset))
    if config.target_returns is not None:
        given = (
            Choice("target returns", ", ".join(map(format_setting, config.target_returns)), "as given"),
            *given,
        )
    said = {choice.what for choice in given}
    found = choices(dataset, has_targets=config.agent.takes_target_returns)
    return (*given, *(choice for choice in found if choice.what not in said), *of_run(config, dataset))


def of_run(config: RunConfig[Any], dataset: TrajectoryDataset) -> tuple[Choice, ...]:
    """Of that what the run decides: its length, schedules and time."""
    return (*_of_length(config, dataset), _time(config, dataset))


def _passes(config: RunConfig[Any], dataset: TrajectoryDataset) -> float:
    return config.num_steps * config.agent.steps_a_batch / dataset.num_steps


def _of_length(config: RunConfig[Any], dataset: TrajectoryDataset) -> Iterator[Choice]:
    passes = _passes(config, dataset)
    shown = f"{passes:,.0f}" if passes >= 10 else f"{passes:.2g}"
    yield Choice("gradient steps", f"{config.num_steps:,}", f"each logged step is seen {shown} times")
    settled = vars(config.agent.for_steps(config.num_steps))
    for name in config.agent.active_schedules:
        share = percent(settled[name] / config.num_steps)
        why = f"{share} of the run" if vars(config.agent)[name] is None else f"as given, {share} of the run"
        yield Choice(name.replace("_", " "), f"{settled[name]:,}", why)


def rough_seconds(config: RunConfig[Any], dataset: TrajectoryDataset) -> float:
    """How long one core may take for a run, since nothing was measured yet."""
    seconds = config.num_steps * config.agent.rough_seconds_a_step(config.num_steps, config.precision)
    if dataset.spec.env_id is not None and config.num_episodes:
        targets = config.targets(dataset.spec) or (0.0,)
        evaluations = count_evaluations(config.num_steps, config.evaluate_every)
        seconds += evaluations * config.num_episodes * len(targets) * config.agent.seconds_an_episode
    return seconds


def _time(config: RunConfig[Any], dataset: TrajectoryDataset) -> Choice:
    why = "rough, for one core of a server; measured once steps were made"
    return Choice("expected time", shown_time(rough_seconds(config, dataset)), why)


def warnings(config: RunConfig[Any], dataset: TrajectoryDataset) -> Iterator[str]:
    """What of a run on a data set is unusual."""
    yield from far_targets(config, dataset)
    yield from few_data(config, dataset)
    yield from short_context(config, dataset)


def far_targets(config: RunConfig[Any], dataset: TrajectoryDataset) -> Iterator[str]:
    """Say it where a run is asked for returns as far above the data's best as that is above their worst."""
    worst, best = float(dataset.episode_returns.min()), float(dataset.episode_returns.max())
    far = [target for target in config.target_returns or () if target > 2 * best - worst]
    if far:
        asked = ", ".join(map(format_setting, far))
        yield (
            f"target returns {asked}: extrapolation, far above the best return of the data "
            f"({format_setting(best)}), of which nothing was learned"
        )


def few_data(config: RunConfig[Any], dataset: TrajectoryDataset) -> Iterator[str]:
    """Say it where a run sees its data so often that it learns them by heart."""
    passes = _passes(config, dataset)
    if passes <= MOST_PASSES:
        return
    steps = max(1, MOST_PASSES * dataset.num_steps // config.agent.steps_a_batch)
    share = None if config.holds_out else share_to_propose(dataset.num_episodes, 0.2)
    hint = f", and --validation-share {share} shows when they are learned by heart" if share else ""
    yield (
        f"few data ({count(dataset.num_episodes, 'episode')}): {config.num_steps:,} gradient steps show each "
        f"of {dataset.num_steps:,} logged steps {passes:,.0f} times; --num-steps {steps} shows them "
        f"{MOST_PASSES:,} times{hint}"
    )


def short_context(config: RunConfig[Any], dataset: TrajectoryDataset) -> Iterator[str]:
    """Say it where a task of memory asks for what lies further back than a model sees."""
    task = ENVIRONMENTS.get(dataset.spec.env_id or "")
    context = vars(config.agent).get("context_length")
    if not isinstance(task, MemoryEnvironment) or context is None:
        return
    needed = dataset.episode_lengths - task.cue_steps + 1
    if (share := float((needed > context).mean())) > 0:
        yield (
            f"context length {context}: shorter than the delay in {percent(share)} of the episodes, at whose "
            f"end the cue is out of sight and {percent(task.chance)} are right by chance; --context-length "
            f"{int(needed.max())} shows it"
        )

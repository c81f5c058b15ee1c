"""Training in one call: from arrays, a name or a data set to a policy that acts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import ArrayLike
from torch import nn

from chibit.agents import Agent, AgentConfig
from chibit.core.config import settings_of, with_settings
from chibit.core.errors import InputError
from chibit.core.fields import refusal
from chibit.core.files import nearest, user_path
from chibit.core.plugins import is_address
from chibit.core.run_dir import undone_if_refused
from chibit.data.dataset import TrajectoryDataset
from chibit.data.load import READING, from_arrays, load_dataset
from chibit.data.mix import mix
from chibit.data.readers.unpickler import COLUMN_NAMES, EPISODE_NAMES
from chibit.environments.own import EnvLike, take_env
from chibit.models.initializers import short_name
from chibit.models.own_backbone import register_backbone
from chibit.policy.policy import Policy
from chibit.recipes import find_recipe
from chibit.training.offline import Callback, train
from chibit.training.pretrain.sources import import_sources
from chibit.training.run_config import RunConfig, check_targets, run_path
from chibit.training.warm_start import source_config

DataLike: TypeAlias = TrajectoryDataset | str | Path | Mapping[str, ArrayLike]
_NAMES = COLUMN_NAMES | EPISODE_NAMES
_ARRAYS = tuple(_NAMES)
_EXPECTED = f"arrays {', '.join(_ARRAYS[:4])}"
_BACKBONE = "initializer"


@dataclass(frozen=True)
class FitResult:
    """A finished run."""

    path: Path
    """Its directory: what `chibit evaluate`, `export`, `judge` and `report` take."""
    record: Mapping[str, Any]
    """The content of its result.json; see docs/architecture.md."""

    @cached_property
    def policy(self) -> Policy:
        """What it has learned, with one episode begun: `act` and `observe` in turn, `reset` for the next."""
        policy = Policy.from_pretrained(self.path)
        policy.reset()
        return policy

    @property
    def scores(self) -> Sequence[Mapping[str, Any]]:
        """One for each target return: last, last4, best, best_step ...; none without an environment."""
        scores: Sequence[Mapping[str, Any]] = self.record["scores"]
        return scores


def fit(
    data: DataLike | Sequence[DataLike] | None = None,
    agent: str | type[Agent] | AgentConfig | None = None,
    *,
    steps: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    env: EnvLike | None = None,
    backbone: nn.Module | Callable[[], nn.Module] | None = None,
    on_evaluation: Callback | Sequence[Callback] = (),
    progress: bool = False,
    **settings: Any,
) -> FitResult:
    """Train a policy on logged trajectories, evaluate it where there is an environment, and keep the run.

    It is `chibit train` in Python: the same run directory, which goes on where it was when called again.

    Args:
        data: what `load_dataset` gave, a name or path for it, or arrays by the names of `from_arrays`, which
            may be given as keywords too; a dictionary may have usual names (obs, reward, done ...). A list of
            them is mixed, as often drawn as `data_weights` say.
        agent: a recipe (chibit, dt, bc, td3_bc ...; `chibit recipes` lists them), MODULE:CLASS, an agent
            class of yours, or its config; None is chibit, or the method of `init_from`.
        steps: gradient steps; None is 100,000.
        seed: of initialization, batches and evaluation.
        out: run directory; None makes runs/runs/<arm>-<data>-s<seed>-<hash>.
        env: environment to evaluate in: an id, what builds one, or an instance; None takes that of the data.
        backbone: module of yours for the sequence model; see `register_backbone`.
        on_evaluation: called after each evaluation with `Evaluated`, one or several.
        progress: show a progress bar.
        settings: any other field of `RunConfig` (num_episodes, evaluate_every, target_returns, precision ...)
            or of the agent's config (learning_rate, batch_size, context_length ...).

    Raises:
        UserError: as `chibit train`, in one line.
    """
    for name, path in (("out", out), ("init_from", settings.get("init_from", ""))):
        if not isinstance(path, str | Path | None):
            raise refusal(name, path, "a path")
    if steps is not None and "num_steps" in settings:
        raise InputError("steps, num_steps: mean the same; give one")
    arrays = {name: settings.pop(name) for name in _ARRAYS if name in settings}
    reading = {name: settings.pop(name) for name in READING if name in settings}
    more = settings.pop("more_data", ())
    parts = [*_open(data, arrays, reading), *(_open(more, {}, reading) if more else ())]
    dataset = parts[0] if len(parts) == 1 else mix(parts, settings.get("data_weights", ()))
    given: dict[str, Any] = {"seed": seed, **settings} | ({} if steps is None else {"num_steps": steps})
    given = given if backbone is None else _with_backbone(given, backbone)
    if agent is None:
        agent = source_config(settings["init_from"]) if settings.get("init_from") else "chibit"
    given |= {"more_data": tuple(str(part.folder) for part in parts[1:])} if len(parts) > 1 else {}
    config = _configure(parts[0], agent, dataset.spec.env_id if env is None else take_env(env), given)
    check_targets(config)
    path = run_path(config, Path("runs"), "runs") if out is None else user_path(out)
    with undone_if_refused(path):
        record = train(config, path, dataset=dataset, on_evaluation=on_evaluation, progress=progress)
    return FitResult(path, record)


def _open(data: Any, arrays: Mapping[str, Any], reading: Mapping[str, Any]) -> list[TrajectoryDataset]:
    """The data sets that are meant, one for most."""
    if isinstance(data, Mapping):
        arrays, data = {**data, **arrays}, None
    if isinstance(data, str | Path) and not arrays:
        return [load_dataset(data, progress=False, **reading)]
    if isinstance(data, list | tuple) and data and not arrays:
        return [part for one in data for part in _open(one, {}, reading)]
    if reading:
        raise InputError(f"{next(iter(reading))}: acts where data is a name or a path; leave it out")
    if isinstance(data, TrajectoryDataset) and not arrays:
        return [data]
    if data is not None or not arrays:
        found = "nothing" if data is None else type(data).__name__
        raise InputError(f"data: got {found}, expected a data set, a name, a path, or {_EXPECTED}")
    return [from_arrays(**_by_our_names(arrays))]


def _by_our_names(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by the names of `from_arrays`, from usual ones."""
    ours = {usual: name for name, names in _NAMES.items() for usual in names}
    found: dict[str, Any] = {}
    for name, values in arrays.items():
        if name not in ours:
            raise InputError(f"data: unknown {name!r}{nearest(str(name), ours)}; expected {_EXPECTED}")
        if ours[name] in found:
            raise InputError(f"data: {ours[name]} are given twice, also as {name!r}; leave one out")
        found[ours[name]] = values
    has_ends = "truncations" in found or "episode" in found
    missing = [name for name in _ARRAYS[: 3 if has_ends else 4] if name not in found]
    if missing:
        raise InputError(f"data: no {missing[0]}; got {', '.join(arrays)}, expected {_EXPECTED}")
    return found


def _with_backbone(settings: Mapping[str, Any], backbone: Any) -> dict[str, Any]:
    """Settings that name a module of the user's."""
    if _BACKBONE in settings:
        raise InputError(f"{_BACKBONE}: got {settings[_BACKBONE]!r} beside backbone, expected one of them")
    name = register_backbone(backbone)
    return {_BACKBONE: name, "arm": short_name(name), **settings}


def _configure(
    dataset: TrajectoryDataset, agent: Any, env_id: str | None, settings: Mapping[str, Any]
) -> RunConfig[Any]:
    """The run of a method on a data set, with other settings."""
    data = str(dataset.folder)
    if isinstance(agent, str) and not is_address(agent):
        base = find_recipe(agent, "agent").run(dataset.spec.name)
        base = replace(base, data=data, env_id=env_id, arm=agent)
    else:
        base = RunConfig(data=data, env_id=env_id, agent=agent)
    of_run = settings_of(RunConfig).keys() - {"data", "agent", "env_id"}
    of_agent = settings_of(type(base.agent))
    for name in settings:
        if name not in of_run and name not in of_agent:
            if name == _BACKBONE:
                raise InputError(f"backbone: agent {base.agent.agent} has none; use dt, or a recipe of it")
            known = ["steps", *of_agent, *of_run]
            raise InputError(f"fit: unknown setting {name!r}{nearest(name, known)}")
    config = with_settings(base.agent, {name: settings[name] for name in settings if name in of_agent})
    import_sources(config)
    rest = {name: settings[name] for name in settings if name in of_run}
    return with_settings(replace(base, agent=config), rest)

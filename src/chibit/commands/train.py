"""``chibit train``, and what it shares with ``chibit pretrain``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.table import Table

from chibit.agents import DEFAULT_AGENT
from chibit.commands.parsing import WithEnvModule, parse, take_option
from chibit.core.config import Checked, read_json
from chibit.core.errors import InputError
from chibit.core.fields import BASIC, Group, Needs, Out
from chibit.core.formatting import format_number, format_setting
from chibit.core.run_dir import RunDir, undone_if_refused
from chibit.core.score_rules import name_last
from chibit.core.terminal import make_console, print_table

if TYPE_CHECKING:
    from chibit.data.choices import Choice
    from chibit.data.dataset import TrajectoryDataset


@dataclass(frozen=True, kw_only=True)
class MethodChoice(Checked):
    """What decides which other flags there are, and their defaults; it is read before them."""

    agent: Annotated[str, BASIC, Group("method")] = DEFAULT_AGENT
    """Method, or MODULE:CLASS of yours; dt is the sequence model. Each has flags of its own."""
    recipe: Annotated[str, BASIC] = ""
    """Named configuration; chibit recipes lists them."""
    config: str = ""
    """config.json of an earlier run; its settings hold unless a flag says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Destination(Checked):
    """Where a run is written."""

    out: Annotated[Out | None, BASIC, Group("output")] = None
    """Run directory; None makes runs/STUDY/<arm>-<data>-s<seed>-<hash>."""
    study: str = "runs"
    """Name of the group of runs it belongs to; chibit report takes the group's folder."""
    resume: bool = True
    """Go on from the newest checkpoint in the run directory, if there is one."""
    allow_inexact_resume: Annotated[bool, Needs("--resume", lambda destination: destination.resume)] = False
    """Go on with new random numbers where the checkpoint's cannot be restored."""
    quiet: bool = False
    """No progress bar."""

    def run(
        self, training: Callable[..., dict[str, Any]], config: Any, path: Path, **others: Any
    ) -> dict[str, Any]:
        """Train as these settings say; a run that is refused at its start leaves nothing behind."""
        with undone_if_refused(path):
            return training(
                config,
                path,
                study=self.study,
                resume=self.resume,
                allow_inexact_resume=self.allow_inexact_resume,
                progress=not self.quiet,
                **others,
            )


@dataclass(frozen=True, kw_only=True)
class TrainDestination(Destination, WithEnvModule):
    """Where a run is written, whether it is judged, and the module of its environment."""

    judge: Annotated[bool, Group("evaluation")] = True
    """Judge a run whose data name no environment at its end, as chibit judge does, unless that would take
    longer than the run and more than a minute."""

    def judging(
        self, config: Any, dataset: TrajectoryDataset, held_out: TrajectoryDataset | None
    ) -> Iterator[Choice]:
        """Say, for the table at the start of a run, how it is judged where no environment can judge it."""
        from chibit.commands.judge import judging_at_end

        if dataset.spec.env_id is not None:
            return
        chosen = judging_at_end(config, dataset, held_out)[1]
        yield chosen if self.judge else chosen._replace(value="none", why="--no-judge; chibit judge does it")


def train(argv: Sequence[str], prog: str) -> None:
    """``chibit train``."""
    from chibit.training.offline import train as train_offline
    from chibit.training.run_config import check_targets, run_path

    config, destination = parse_run(list(argv), prog)
    check_targets(config)
    path = destination.out or run_path(config, Path("runs"), destination.study)
    result = destination.run(train_offline, config, path, afterwards=destination.judging)
    console = make_console()
    if result["scores"]:
        print_table(console, result_table(result))
    else:
        behavior = format_number(result["behaviour_mean_return"])
        console.print(
            f"{result['steps']:,} steps; not evaluated (no environment, or --num-episodes 0); the data's own "
            f"mean return: {behavior}",
            soft_wrap=True,
        )
    if destination.judge:
        _judge_unplayed(path, config, destination)
    console.print(f"run directory: {path}", soft_wrap=True)


def _judge_unplayed(path: Path, config: Any, destination: TrainDestination) -> None:
    """Judge a run that no environment can judge, once; say why where that is not done."""
    from chibit.commands.judge import judge_runs, judging_at_end
    from chibit.judging.judgement import FILE
    from chibit.training.run_data import are_here, open_data

    if RunDir.open(path).provenance()["dataset"]["env_id"] is not None or (path / FILE).exists():
        return
    if not are_here(config):
        make_console().print(
            "not judged: the data of this finished run are not here any more", soft_wrap=True
        )
        return
    try:
        is_judged, choice = judging_at_end(config, *open_data(config))
    except InputError as error:  # of a run that was finished when they could be read
        make_console().print(f"not judged: {error}", soft_wrap=True)
        return
    if is_judged:
        judge_runs([path], device=config.device, progress=not destination.quiet)
    else:
        make_console().print(f"not judged: {choice.why}", soft_wrap=True)


def parse_run(argv: list[str], prog: str) -> tuple[Any, TrainDestination]:
    """Flags to a run configuration. Precedence: field default < recipe < ``--config`` file < flag."""
    from chibit.agents import AGENTS
    from chibit.environments.own import take_env
    from chibit.models.initializers import import_initializer
    from chibit.recipes import find_recipe
    from chibit.training.run_config import RunConfig, from_record
    from chibit.training.warm_start import source_config

    spread_data(argv)
    take_option(list(argv), "--more-data")  # nor a second one of these
    take_option(list(argv), "--data")  # refuses a second one, which would take the place of the first
    agent_name, recipe_name, config_file = (
        take_option(list(argv), name) for name in ("--agent", "--recipe", "--config")
    )
    entry = AGENTS[DEFAULT_AGENT]
    is_module = agent_name is not None and ":" in agent_name
    if agent_name is not None:
        entry = AGENTS[AGENTS.load(agent_name)] if is_module else AGENTS.find(agent_name, "--agent")
    chosen = (None if is_module else agent_name, recipe_name, config_file)  # files may need a module
    if sum(value is not None for value in chosen) > 1:
        raise InputError("--agent, --recipe and --config each choose the method; give one of them")
    if config_file is not None:
        record = read_json(Path(config_file))
        record = record.get("config", record) if isinstance(record, dict) else record
        if isinstance(record, dict) and record.keys().isdisjoint({"agent_name", "corpus"}):
            raise InputError(f"{config_file}: is not of a run; give the config.json of a run's folder")
        base = from_record(record, config_file)
    elif recipe_name is not None:
        data = take_option(argv, "--data")  # a recipe may depend on it
        recipe = find_recipe(recipe_name, "--recipe")
        base = dataclasses.replace(recipe.run(data=data or ""), arm=recipe_name)
        if data is None:
            _require_data(base)
    else:
        source = take_option(list(argv), "--init-from")
        if source is not None and agent_name is None:
            base = RunConfig(data="", agent=source_config(source))
        else:
            base = RunConfig(data="", agent=entry.config())
        _require_data(base)
    arguments = parse(
        arguments_class(type(base.agent)), argv, prog, arguments_class(type(base.agent))(run=base)
    )
    given = {word for argument in argv for word in argument.split("=", 1)}
    for source in set(arguments.run.agent.sources) & given:  # a file causes no import
        import_initializer(source)
    arguments.destination.load_modules()
    if arguments.run.env_id in given:  # nor does it name an environment that is not in the registry
        take_env(arguments.run.env_id)
    return arguments.run, arguments.destination


def spread_data(argv: list[str]) -> None:
    """Write ``--data A B`` as ``--data A --more-data B``."""
    if "--data" in argv:
        first = argv.index("--data") + 2
        last = next((i for i in range(first, len(argv)) if argv[i].startswith("--")), len(argv))
        if last > first:
            argv.insert(first, "--more-data")


def _require_data(base: Any) -> None:
    """Have tyro ask for ``--data``: its mark for that is no value that a config would take."""
    object.__setattr__(base, "data", tyro.MISSING)


def arguments_class(agent_config: type) -> Any:
    """The arguments of ``chibit train`` for a method."""
    from chibit.training.run_config import RunConfig

    return with_destination(
        RunConfig[agent_config],  # type: ignore[valid-type]
        "Fine-tune an agent on logged trajectories and evaluate it. The flags are those of the method "
        "chosen: chibit train --agent td3_bc --help.\n\n"
        "Example: chibit train --data hopper-medium --num-steps 5000 --out runs/mine/hopper",
        MethodChoice,
        TrainDestination,
    )


def with_destination(config: Any, text: str, choice: type, destination: type = Destination) -> Any:
    """The class of the arguments of a command that trains: the run's own, its kind, where it is written."""
    fields: list[Any] = [
        ("run", config),
        ("choice", choice, dataclasses.field(default=choice())),
        ("destination", destination, dataclasses.field(default=destination())),
    ]
    made = dataclasses.make_dataclass("Arguments", fields, frozen=True)
    made.__doc__ = text
    return made


def result_table(result: dict[str, Any]) -> Table:
    """The scores of a finished run, a line per target."""
    unit = "normalized, 0 to 100" if result["score_unit"] == "normalized" else "raw return"
    decimals = 1 if result["score_unit"] == "normalized" else None
    table = Table(title=f"scores ({unit}) after {result['steps']:,} steps, one seed")
    rows = result["scores"]
    lengths = [row["num_evaluations"] for row in rows if "num_evaluations" in row]
    last = name_last(lengths) if lengths else "last, at most 4"
    for column in ("target return", "last", last, "best", "at step", "last mean return", "episodes"):
        table.add_column(column, justify="right")
    for row in rows:
        target = "none" if row["target_return"] is None else format_setting(row["target_return"])
        if row["last"] is None:
            table.add_row(target, "every episode failed")
            continue
        scores = [format_number(row[key], decimals=decimals) for key in ("last", "last4", "best")]
        mean, episodes = format_number(row["mean_return_last"]), str(row.get("num_episodes_last", ""))
        table.add_row(target, *scores, f"{row['best_step']:,}", mean, episodes)
    behavior = format_number(result["behaviour_mean_return"])
    if result["behaviour_score"] is not None:
        behavior += f", score {format_number(result['behaviour_score'], decimals=1)}"
    table.caption = f"the data's own mean return: {behavior}"
    return table

"""The main job on a laptop: collect a data set, fine-tune two arms on it, evaluate both, write a page."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from chibit.core.errors import BusyError, UserError
from chibit.core.files import make_folder
from chibit.core.formatting import shown_time
from chibit.core.terminal import make_console
from chibit.recipes import RECIPES
from chibit.reporting.report import print_report
from chibit.sweep import Outcome, run_all
from chibit.sweep.forecast import make_plan
from chibit.sweep.tasks import make_tasks, raise_if_stopped
from chibit.training.loading import load_run
from chibit.training.run_config import RunConfig

ARMS = ("random", "chibit")
DATASET = "hopper-medium"
_COLLECTED_A_SECOND = 7_000
"""Environment steps, in one process."""
_PAGE_SECONDS = 30.0
"""Of the film and the page."""


def quickstart_configs(data: str, num_steps: int, seed: int) -> list[RunConfig[Any]]:
    """One run an arm: a short schedule, the same batches and evaluation episodes for both."""
    configs = []
    for arm in ARMS:
        base = RECIPES[arm].run(data=data)
        agent = dataclasses.replace(base.agent, warmup_steps=100, learning_rate=1e-3)
        configs.append(
            dataclasses.replace(
                base,
                agent=agent,
                arm=arm,
                num_steps=num_steps,
                evaluate_every=max(1, num_steps // 3),
                num_episodes=5,
                log_every=20,
                seed=seed,
                precision="bf16",
                device="cpu",
            )
        )
    return configs


def run_quickstart(
    out: Path, *, num_steps: int, collect_steps: int, num_processes: int, seed: int
) -> Path | None:
    """Collect, train, evaluate and report.

    Args:
        out: folder for everything.
        num_steps: gradient steps of each arm.
        collect_steps: environment steps to collect.
        num_processes: processes side by side.
        seed: seed of everything.

    Returns:
        The page.

    Raises:
        UserError: when a run fails, with its reason.
    """
    from chibit.data.collect.mujoco import collect, find_collectable

    console, started = make_console(), time.perf_counter()
    make_folder(out)
    configs = quickstart_configs(str(out / "data" / find_collectable(DATASET).dataset_id), num_steps, seed)
    tasks = make_tasks(configs, root=out, study=DATASET)
    left = make_plan(tasks, out, num_processes).seconds_left or 0.0
    seconds = collect_steps / _COLLECTED_A_SECOND + left
    console.print(f"about {shown_time(seconds + _PAGE_SECONDS)} in all (rough, for a server's cores)")
    console.rule(f"1 of 3: collect {DATASET} ({collect_steps:,} steps of Hopper-v5)")
    collect(
        DATASET,
        num_steps=collect_steps,
        seed=seed,
        num_processes=num_processes,
        out=out / "data",
        progress=True,
    )
    console.rule(f"2 of 3: fine-tune {' and '.join(ARMS)}, {num_steps:,} steps each, evaluate in Hopper-v5")
    outcomes = run_all(configs, root=out, study=DATASET, num_processes=num_processes)
    raise_if_stopped(outcomes)
    for outcome in outcomes:
        if outcome.status == "busy":
            raise BusyError(outcome.message)
        if outcome.status in ("failed", "stopped"):
            raise UserError(f"{outcome.path}: {outcome.status}: {outcome.message}")
    console.rule("3 of 3: the page")
    _record_video(outcomes[-1], seed, console)
    page = print_report(out / DATASET)
    console.print(f"done in {time.perf_counter() - started:.0f} s; open {page} in a browser")
    return page


def _record_video(outcome: Outcome, seed: int, console: Console) -> None:
    """A short film of the last arm; where nothing can render, say so and go on."""
    loaded = load_run(outcome.path, device="cpu")
    try:
        loaded.film(loaded.spec.default_target_returns[:1], seed)
    except UserError as error:
        console.print(f"no video: {error}")

"""Open what a run has learned: its agent with the weights of one checkpoint, without its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chibit.core.run_dir import RunDir
from chibit.policy.export import film
from chibit.policy.run import RunAgent, load_run_agent
from chibit.training.run_config import RunConfig, from_record


@dataclass(frozen=True)
class LoadedRun(RunAgent):
    """A run's agent at one checkpoint, with its configuration."""

    run: RunDir
    config: RunConfig[Any]

    def film(self, targets: Sequence[float] | None, seed: int) -> list[Path]:
        """Film the beginning of an episode for each target into the run's folder `videos`."""
        paths = []
        for target in targets or (None,):
            name = "policy" if target is None else f"target-{float(target)!r}".removesuffix(".0")
            paths.append(self.run.own_folder("videos") / f"{name}.mp4")
            film(self.agent, self.spec, paths[-1], target_return=target, seed=seed)
        return paths


def load_run(path: Path, which: str = "last", *, device: str = "auto") -> LoadedRun:
    """Load a run's agent, with its configuration and number of threads; raises as `load_run_agent`."""
    run = RunDir.open(path)
    config = from_record(run.description()["config"], str(path / "config.json"))
    loaded = load_run_agent(path, which, device=device, num_threads=config.num_threads)
    return LoadedRun(**vars(loaded), run=run, config=config)

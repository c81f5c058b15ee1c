"""Write or check what a restructuring must leave as it is: losses of every agent, evaluations, a report.

    python tests/golden/make_runs.py           write runs.json
    python tests/golden/make_runs.py --check   say what has changed

Data are closed forms, so that no generator's stream matters. `runs.json` holds numbers, a SHA-256 over their
bits, and the environment in which those were computed: in the same one the bits must be equal, elsewhere the
numbers, to rounding. After a change of what is computed, write them anew and say so in the commit.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "reporting"))
from synthetic_runs import write_study

import baseline_toys
import chibit
import sequence_toys
from chibit.agents import AGENTS, make_agent
from chibit.core.runtime import Runtime
from chibit.data.dataset import TrajectoryDataset
from chibit.evaluation.rollout import evaluate
from chibit.reporting.report import build_report
from golden.environment import fingerprint

FILE = Path(__file__).with_name("runs.json")
STEPS, EPISODES, LENGTH = 20, 12, 25
SEQUENCE = ("dt", "reinformer")
AUTHORS_UNITS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("td3_bc", "cql", "brac_v", "awr", "rebrac"), {"reward_scale": 1.0}),
    **dict.fromkeys(("qr_dqn", "rem", "discrete_cql"), {"reward_clip": 1.0}),
    "iql": {"scale_rewards": True, "actor_decay_steps": 1_000_000},
}
"""Of rewards, as in the paper's environments, whatever these data are."""
EVALUATED = ("dt", "td3_bc", "discrete_bc")


@cache
def data(is_discrete: bool) -> TrajectoryDataset:
    """Twelve episodes of 25 steps with states of Pendulum's or CartPole's size, every other one truncated."""
    t = np.arange(EPISODES * LENGTH, dtype=np.float64)
    states = np.stack([np.sin(0.3 * t), np.cos(0.3 * t), np.sin(0.7 * t), np.cos(0.11 * t)], axis=1)
    ends, odd = t % LENGTH == LENGTH - 1, (t // LENGTH) % 2 == 1
    actions = (t.astype(np.int64) * 7) % 2 if is_discrete else 1.9 * np.sin(0.23 * t)[:, None]
    return chibit.from_arrays(
        observations=states if is_discrete else states[:, :3],
        actions=actions,
        rewards=np.cos(0.19 * t) + 0.1 * (t // LENGTH),
        terminations=ends & ~odd,
        truncations=ends & odd,
        env_id="CartPole-v1" if is_discrete else "Pendulum-v1",
        cache=sequence_toys.scratch(),
    )


def trained(name: str) -> tuple[Any, list[float]]:
    """An agent after the first steps, and their losses."""
    is_discrete = name in baseline_toys.DISCRETE
    small = (
        sequence_toys.SMALL
        if name in SEQUENCE
        else {**baseline_toys.SMALL[name], **AUTHORS_UNITS.get(name, {})}
    )
    torch.manual_seed(0)
    config = AGENTS[name].config(**{**small, "batch_size": 8})
    agent = make_agent(config, data(is_discrete).spec, Runtime())
    sampler = agent.sampler(agent.prepare(data(is_discrete)), np.random.default_rng(0))
    return agent, [float(agent.update(sampler.sample())["train/loss"]) for _ in range(STEPS)]


def evaluations(name: str, agent: Any) -> list[float]:
    """Returns of two episodes for each target, and how long they were."""
    targets = (20.0, 5.0) if agent.is_return_conditioned else (None,)
    played = evaluate(
        agent.policy(None if targets == (None,) else targets),
        data(name in baseline_toys.DISCRETE).spec.env_id,
        target_returns=targets,
        num_episodes=2,
        seed=0,
        max_episode_steps=30,
    )
    return [float(x) for one in played for x in (*one.episode_returns, *one.episode_lengths, *one.env_seeds)]


def numbers() -> dict[str, list[float]]:
    """All series by name."""
    found = {}
    for name in (*SEQUENCE, *baseline_toys.SMALL):
        agent, found[f"losses of {name}"] = trained(name)
        if name in EVALUATED:
            found[f"evaluation of {name}"] = evaluations(name, agent)
    return found


def report() -> dict[str, str]:
    """Hashes of the texts of a fixed study's report."""
    with tempfile.TemporaryDirectory() as folder:
        arms = {"random": 0.0, "chibit": 4.0, "dt": -2.0}
        data_names = ["hopper-medium-v2", "walker2d-medium-v2"]
        study = write_study(Path(folder) / "table2", arms, data_names, range(3), num_evaluations=4)
        paths = build_report(study, formats=("md", "csv", "tex"))
        texts = {path.name: path.read_text() for path in vars(paths).values() if path}
    return {name: hashlib.sha256(plain(text, folder).encode()).hexdigest() for name, text in texts.items()}


def plain(text: str, folder: str) -> str:
    """A text without its folder's name, with single blanks, and numbers to six digits."""
    text = re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.6g}", text.replace(folder, ""))
    return re.sub(r"\s+", " ", text).strip()


def bits(found: dict[str, list[float]]) -> dict[str, str]:
    """SHA-256 of each series' float64 bits."""
    return {name: hashlib.sha256(np.array(x, "<f8").tobytes()).hexdigest() for name, x in found.items()}


def main() -> None:
    torch.set_num_threads(1)
    found = numbers()
    record = {"environment": fingerprint(), "bits": bits(found), "numbers": found, "report": report()}
    if "--check" not in sys.argv:
        FILE.write_text(json.dumps(record, indent=1) + "\n")
        return
    recorded = json.loads(FILE.read_text())
    changed = [
        name
        for part in ("bits", "report")
        for name in record[part]
        if recorded[part].get(name) != record[part][name]
    ]
    sys.exit(f"changed: {', '.join(changed)}" if changed else 0)


if __name__ == "__main__":
    main()

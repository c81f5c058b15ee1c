"""Play splits of finished runs again, where what these say has changed since, into their result.json.

What was there stays, under the split's name with an ending. Policies and seeds of episodes are those that the
run had at its end: a split that says the same has the same outcomes.

Command:
    python scripts/replay_splits.py runs/language verb_nonsense type_nonsense color_nonsense \\
        --keep-as two_tokens
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from chibit.core.run_dir import RunDir
from chibit.training.loading import load_run
from chibit.training.offline import evaluation_seed
from chibit.training.splits import play_splits


def replay(path: Path, splits: list[str], ending: str) -> None:
    """Play the splits of a run; nothing where they were replayed before."""
    run, result = RunDir.open(path), RunDir.open(path).result()
    before: dict[str, Any] = {entry["split"]: entry for entry in result.get("splits") or ()}
    wanted = [split for split in splits if split in before and f"{split}_{ending}" not in before]
    if not wanted:
        return
    loaded = load_run(path)
    config, spec = loaded.config, loaded.spec
    seed = evaluation_seed(config.seed, 0)
    played, _ = play_splits(
        loaded.agent, spec, config.targets(spec), config.num_episodes, seed=seed, say=print, only=wanted
    )
    kept = [{**before[split], "split": f"{split}_{ending}"} for split in wanted]
    entries = before | {entry["split"]: entry for entry in (*played, *kept)}
    run.write_result({**result, "splits": list(entries.values())})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder of run directories")
    parser.add_argument("splits", nargs="+", help="splits to play")
    parser.add_argument("--keep-as", required=True, help="ending of the names of the old outcomes")
    arguments = parser.parse_args()
    for result in sorted(arguments.study.glob("*/result.json")):
        print(result.parent.name)
        replay(result.parent, arguments.splits, arguments.keep_as)


if __name__ == "__main__":
    main()

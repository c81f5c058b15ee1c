"""Campaigns against what a user relies on: kills, flipped bits, mutated files, and what safety costs.

    python benchmarks/faults.py                        # 50 kills, all bits, 1,000 mutants of each kind
    python benchmarks/faults.py --kills 1000 --mutations 0
    python benchmarks/faults.py --parts mutations --mutations 5000 --kinds "command line"
    python benchmarks/faults.py --parts flips saving

Every table must show 0 in the columns lost, torn, unequal, silent, executed, crashed. Exit code 1 if one does
not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from chibit.core.checkpoint import CheckpointSaver

PARTS = ("kills", "flips", "mutations", "saving")


def kills(folder: Path, arguments: argparse.Namespace) -> bool:
    """Print the table of kills; True if nothing was lost."""
    from faults_kills import in_place_campaign, kill_campaign

    in_save = arguments.kills // 5 if arguments.kills_in_save is None else arguments.kills_in_save
    found = kill_campaign(folder, arguments.kills, in_save, arguments.seed)
    columns = ("kills", "in_save", "runs", "lost", "torn", "unequal", "failed", "leftovers")
    print("| " + " | ".join(columns).replace("_", " ") + " |")
    print("|" + "---|" * len(columns))
    print("| " + " | ".join(str(found[column]) for column in columns) + " |", flush=True)
    number = min(12, arguments.kills)
    unreadable = in_place_campaign(folder, number, arguments.seed)
    print(f"\nFor comparison, torch.save in place: {unreadable} of {number} kills left it unreadable.")
    return not any(found[column] for column in columns[3:])


def flips(folder: Path, _: argparse.Namespace) -> bool:
    """Print the table of flipped bits; True if each was noticed."""
    from faults_flips import flip_campaign

    table = flip_campaign(folder / "checkpoints")
    print("| file | bits | noticed | silent | noticed by safetensors alone |\n|---|---|---|---|---|")
    for name, (bits, noticed, alone) in table.items():
        shown = alone if name.endswith("safetensors") else "-"
        print(f"| {name} | {bits:,} | {noticed:,} | {bits - noticed} | {shown} |", flush=True)
    return all(bits == noticed for bits, noticed, _ in table.values())


def mutations(folder: Path, arguments: argparse.Namespace) -> bool:
    """Print the table of mutated files; True if none got through."""
    from faults_mutations import BAD, COLUMNS, mutation_campaign

    table = mutation_campaign(folder, arguments.mutations, arguments.seed, arguments.kinds, arguments.first)
    print("| files | " + " | ".join(COLUMNS) + " | largest, MB |\n|---" + "|---" * (len(COLUMNS) + 1) + "|")
    for kind, found in table.items():
        counts = " | ".join(str(found[column]) for column in COLUMNS)
        print(f"| {kind} | {counts} | {found['megabytes']} |", flush=True)
    return not any(found[column] for found in table.values() for column in BAD)


def saving(folder: Path, arguments: argparse.Namespace) -> bool:
    """Print what a save of the default model costs beside `torch.save`, interleaved, wall time."""
    weights = {f"w{i}": torch.randn(36_500) for i in range(20)}  # 0.73 million: the Decision Transformer's
    moments = {i: {"exp_avg": torch.randn(36_500), "exp_avg_sq": torch.randn(36_500)} for i in range(20)}
    times: dict[str, list[float]] = {"torch.save": [], "training waits": [], "on the disk": []}
    with CheckpointSaver(folder / "background") as saver:
        for step in range(arguments.repeats):
            for name in times:
                begin = time.perf_counter()
                if name == "torch.save":
                    torch.save({"weights": weights, "state": moments}, folder / "plain.pt")
                elif name == "training waits":
                    saver.save(step, weights, {"moments": moments})
                else:
                    saver.save(step, weights, {"moments": moments})
                    saver.wait()
                times[name].append(time.perf_counter() - begin)
                saver.wait()
    medians = {name: statistics.median(values) for name, values in times.items()}
    print("| | median, ms | ratio |\n|---|---|---|")
    for name, seconds in medians.items():
        print(f"| {name} | {1000 * seconds:.1f} | {seconds / medians['torch.save']:.2f} |", flush=True)
    return medians["training waits"] <= 1.6 * medians["torch.save"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kills-in-save", type=int, help="of those; a fifth if not given")
    parser.add_argument("--mutations", type=int, default=1000, help="of each kind")
    parser.add_argument("--kinds", nargs="+", default=(), help="of what to spoil; all if not given")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant of each kind")
    parser.add_argument("--repeats", type=int, default=30, help="of each way to save")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    good = True
    for part in arguments.parts:
        with tempfile.TemporaryDirectory(prefix="chibit-faults-") as temporary:
            os.environ["CHIBIT_HOME"] = str(Path(temporary) / "home")
            print(f"\n{part}", flush=True)
            begin = time.perf_counter()
            good &= globals()[part](Path(temporary), arguments)
            print(f"({time.perf_counter() - begin:.0f} s)", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

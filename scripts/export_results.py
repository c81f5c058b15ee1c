"""Write the raw results of a study's finished runs as small CSV files that can be kept in the repository.

One file for each arm and data set, ``<out>/<study>/<arm>/<data>.csv``, one line for each evaluation of
each seed: ``seed,step,seconds,target_return,score,mean_return,episodes``. `score` is normalised, 0 to
100, and empty where the environment has no reference; `episodes` are those whose environment did not fail.

Command: python scripts/export_results.py runs/policies --out results
"""

from __future__ import annotations

import argparse
import csv
import io
from collections import defaultdict
from pathlib import Path

from chibit.core.errors import UserError
from chibit.core.files import check_name, write_atomic
from chibit.core.run_dir import RunDir
from chibit.evaluation.summary import summarize_record

COLUMNS = ("seed", "step", "seconds", "target_return", "score", "mean_return", "episodes")


def rows_of(run: RunDir, seed: int) -> list[tuple]:
    rows = []
    for record in run.read_log("evaluations.jsonl"):
        summary = summarize_record(record)
        target = "" if summary.target_return is None else f"{summary.target_return:g}"
        score = "" if summary.normalized_score is None else f"{summary.normalized_score:.4f}"
        mean = "" if summary.mean_return is None else f"{summary.mean_return:.7g}"
        seconds = f"{record['seconds']:.1f}"
        rows.append((seed, record["step"], seconds, target, score, mean, summary.num_episodes))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder of run directories")
    parser.add_argument("--out", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    tables: dict[Path, list[tuple]] = defaultdict(list)
    for path in sorted(arguments.study.iterdir()):
        if not (path / "result.json").is_file():
            continue
        run = RunDir.open(path)
        description = run.description()
        arm = check_name(description["arm"], "arm")
        data = Path(description["config"]["data"]).name
        name = check_name(f"{arguments.study.name}/{arm}/{data}", "result")
        tables[arguments.out / f"{name}.csv"] += rows_of(run, description["config"]["seed"])
    if not tables:
        raise SystemExit(f"{arguments.study}: no finished run")
    for path, rows in tables.items():
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sorted(rows, key=lambda row: (row[0], row[1], row[3])))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
        print(path, len(rows))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error

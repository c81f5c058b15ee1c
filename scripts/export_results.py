"""Keep the raw results of a study's finished runs in the repository, and bring them back as runs.

A kept run is its directory without checkpoints, films and logs: config.json, provenance.json,
metrics.jsonl, evaluations.jsonl and result.json, in ``<out>/<study>/<run>/``; beside the runs is study.json,
where the study fixed something beforehand. `chibit report <out>/<study>`
reads it, and a run that was brought back is skipped by `chibit study` as finished. Folders in the command of
provenance.json are left out, and metrics keep the losses and errors alone.

Commands:
    python scripts/export_results.py runs/fair --out results
    python scripts/export_results.py results/fair --out runs
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from chibit.core.config import read_json
from chibit.core.errors import UserError
from chibit.core.files import make_folder, write_atomic
from chibit.core.run_dir import RunDir, dump
from chibit.reporting.read.registration import FILE, holding, read_registration, register

KEPT_METRICS = ("step", "seconds", "train/loss", "train/action_loss", "held_out/action_error")


def clean_command(argv: list[str]) -> list[str]:
    """A command without the folders of the machine it ran on."""
    return ["=".join(map(_last_part, word.split("="))) for word in argv]  # --root=/home/me too


def _last_part(word: str) -> str:
    return Path(word).name if Path(word).is_absolute() else word


def clean_metrics(run: RunDir) -> str:
    lines = [
        {name: float(f"{line[name]:.6g}") for name in KEPT_METRICS if name in line} | {"step": line["step"]}
        for line in run.read_log("metrics.jsonl")
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def keep(path: Path, out: Path) -> None:
    """Copy what is kept of a finished run; result.json comes last: a part is never taken for a whole."""
    run = RunDir.open(path)
    provenance = read_json(path / "provenance.json")
    provenance["argv"] = clean_command(provenance["argv"])
    evaluations = "".join(json.dumps(line) + "\n" for line in run.read_log("evaluations.jsonl"))
    make_folder(out)
    write_atomic(out / "config.json", dump(run.description(), indent=1))
    write_atomic(out / "provenance.json", dump(provenance, indent=1))
    write_atomic(out / "metrics.jsonl", clean_metrics(run))
    write_atomic(out / "evaluations.jsonl", evaluations)
    write_atomic(out / "result.json", dump(run.result(), indent=1))


def keep_registration(study: Path, out: Path) -> None:
    """Copy what the study fixed beforehand; what is kept already is not replaced by something else."""
    fixed = read_registration(study)
    if holding(out, fixed) != fixed:
        raise SystemExit(f"{out / FILE}: differs from {study / FILE}, and is what was fixed first")
    register(out, fixed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="folder of run directories")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the study's folder")
    arguments = parser.parse_args()
    finished = [path.parent for path in sorted(arguments.study.glob("*/result.json"))]
    if not finished:
        raise SystemExit(f"{arguments.study}: no finished run")
    folder = arguments.out / arguments.study.name
    keep_registration(arguments.study, folder)
    new = [path for path in finished if not (folder / path.name / "result.json").exists()]
    for path in new:
        keep(path, folder / path.name)
    print(f"{folder}: {len(new)} of {len(finished)} finished runs are new")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error

"""How long a report takes: 54 runs x 20 evaluations to page and files, and the bootstrap of a whole table.

    python benchmarks/report.py

Each figure is the median of several fresh processes, imports included; targets: report 5 s, bootstrap 2 s.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WRITER = Path(__file__).parents[1] / "tests" / "unit" / "reporting" / "synthetic_runs.py"
REPEATS = 5

REPORT = """
import sys, time
wall, cpu = time.perf_counter(), time.process_time()
from pathlib import Path
from chibit.reporting import build_report
build_report(Path(sys.argv[1]), Path(sys.argv[2]))
assert "torch" not in sys.modules
print(time.perf_counter() - wall, time.process_time() - cpu)
"""

BOOTSTRAP = """
import sys, time
import numpy as np
from chibit.reporting.statistics.intervals import bootstrap, interquartile_mean, mean_over_tasks
rng = np.random.default_rng(0)
table = [[rng.normal(60, 5, size=10) for _ in range(9)] for _ in range(7)]
wall, cpu = time.perf_counter(), time.process_time()
for arm in table:
    for statistic in (mean_over_tasks, interquartile_mean):
        bootstrap(statistic, arm, rng=np.random.default_rng(0), resamples=10_000)
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        study, out = Path(folder) / "study", Path(folder) / "out"
        writer = load_writer()
        writer.write_study(study, {"random": 0.0, "chibit": 4.0}, writer.NINE, range(3), num_evaluations=20)
        measure("report of 54 runs x 20 evaluations x 2 targets", REPORT, str(study), str(out), target=5.0)
        size = (out / "report.html").stat().st_size / 1e6
        print(f"page: {size:.2f} MB")
    measure("bootstrap, 10,000 resamples of 9 x 10 x 7 scores, 2 statistics", BOOTSTRAP, target=2.0)


def load_writer():
    spec = importlib.util.spec_from_file_location("synthetic_runs", WRITER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(name: str, code: str, *arguments: str, target: float) -> None:
    times = []
    for _ in range(REPEATS):
        command = [sys.executable, "-c", code, *arguments]
        shown = subprocess.run(command, check=True, capture_output=True, text=True)
        times.append([float(part) for part in shown.stdout.split()])
    wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{name}: {wall:.2f} s wall, {cpu:.2f} s processor (target {target:g} s)")


if __name__ == "__main__":
    main()

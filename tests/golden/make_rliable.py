"""Makes rliable_statistics.json: our statistics' inputs and what rliable 1.2.0 gives for them.

rliable is no dependency: it needs old versions of two libraries. In a throw-away environment:

    python -m venv /path/to/env
    /path/to/env/bin/pip install rliable==1.2.0 'arch<8' 'pandas<3'
    /path/to/env/bin/python tests/golden/make_rliable.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rliable import library, metrics

REPLICATES = 5_000
SHAPE = (10, 9)  # runs, data sets


def main() -> None:
    rng = np.random.default_rng(2022)
    difficulty = rng.uniform(30, 110, size=SHAPE[1])
    control = np.round(difficulty + rng.normal(0, 8, size=SHAPE), 1)
    treatment = np.round(difficulty + 3 + rng.normal(0, 6, size=SHAPE), 1)
    thresholds = np.linspace(0, 120, 25)
    statistics = {
        "mean": metrics.aggregate_mean,
        "interquartile_mean": metrics.aggregate_iqm,
        "optimality_gap": lambda scores: metrics.aggregate_optimality_gap(scores, gamma=100.0),
    }
    golden = {
        "made_with": {name: version(name) for name in ("rliable", "arch", "numpy")},
        "replicates": REPLICATES,
        "control": control.tolist(),
        "treatment": treatment.tolist(),
        "thresholds": thresholds.tolist(),
        "points": {name: float(function(treatment)) for name, function in statistics.items()},
        "intervals": {},
    }
    golden["points"]["probability_of_improvement"] = float(
        metrics.probability_of_improvement(treatment, control)
    )
    for name, function in statistics.items():
        golden["intervals"][name] = interval(
            {"x": treatment}, lambda scores, f=function: np.array([f(scores)])
        )
    golden["intervals"]["probability_of_improvement"] = interval(
        {"x": (treatment, control)}, lambda x, y: np.array([metrics.probability_of_improvement(x, y)])
    )
    golden["intervals"]["paired_difference"] = interval(
        {"x": treatment - control}, lambda scores: np.array([metrics.aggregate_mean(scores)])
    )
    profiles, bands = library.create_performance_profile({"x": treatment}, thresholds, reps=2_000)
    golden["profile"] = profiles["x"].tolist()
    golden["profile_band"] = bands["x"].tolist()
    path = Path(__file__).with_name("rliable_statistics.json")
    path.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


def interval(scores: dict, statistic) -> list[float]:
    _, intervals = library.get_interval_estimates(
        scores, statistic, reps=REPLICATES, random_state=np.random.RandomState(0)
    )
    return intervals["x"][:, 0].tolist()


if __name__ == "__main__":
    main()

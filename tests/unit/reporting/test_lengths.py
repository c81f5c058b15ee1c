"""Success by length: a panel for each task in several lengths, with the line of those without memory."""

import json
import re
from collections import defaultdict

import numpy as np
import pytest

from chibit.reporting.analysis import analyze
from chibit.reporting.page import render_page
from chibit.reporting.read.study import read_study

ENV_IDS = {
    "tmaze-15-expert": "chibit/TMaze15-v0",
    "tmaze-50-expert": "chibit/TMaze50-v0",
    "keytodoor-20-expert": "chibit/KeyToDoor20-v0",
}


@pytest.fixture
def study(tmp_path, runs):
    for arm, gain in {"dt_last20": 50.0, "discrete_bc": 0.0}.items():
        for dataset, env_id in ENV_IDS.items():
            for seed in range(2):
                run = runs.write_run(tmp_path, arm, dataset, seed, gain=gain, num_evaluations=2)
                record = json.loads((run / "provenance.json").read_text())
                record["dataset"]["env_id"] = env_id
                runs.write_json(run / "provenance.json", record)
    return tmp_path


def test_lengths_have_a_panel_and_curves_the_line_of_chance(study):
    page = render_page(analyze(read_study(study)), {}, is_beside_runs=False)
    panels = re.findall(r'aria-label="Success by length: ([^"]*)"', page)
    assert len(panels) == 1  # the T-maze in two lengths; the key in one
    scores = defaultdict(list)
    for path in study.glob("*/result.json"):
        config = json.loads(path.with_name("config.json").read_text())
        first = json.loads(path.read_text())["scores"][0]
        scores[config["arm"], config["config"]["data"]].append(first["last4"])
    means = {
        arm: " and ".join(f"{np.mean(scores[arm, f'tmaze-{length}-expert']):.1f}" for length in (15, 50))
        for arm in ("dt_last20", "discrete_bc")
    }
    assert panels[0] == f"DT, last 20 steps {means['dt_last20']}; BC {means['discrete_bc']}."
    assert page.count("Dashed: the best that is reached without memory.") == 2


def test_other_studies_have_neither(tmp_path, runs):
    runs.write_study(tmp_path, {"dt": 0.0}, ["hopper-medium-v2"], [0, 1], num_evaluations=2)
    page = render_page(analyze(read_study(tmp_path)), {}, is_beside_runs=False)
    assert "Success by length" not in page and "without memory" not in page

"""The commands of docs/language.md from an empty folder, with small sizes; the study and what it lacks."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from chibit.cli import main
from chibit.studies import STUDIES
from chibit.study_runs import study_configs

pytest.importorskip("minigrid")
pytest.importorskip("tiktoken")
REPLAY = Path(__file__).parents[2] / "scripts" / "replay_splits.py"
PAGE = (Path(__file__).parents[2] / "docs" / "language.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith("chibit ")
]
SHORT = {
    "data": ["--num-episodes", "120"],
    "train": ["--num-steps", "4", "--evaluate-every", "2", "--num-episodes", "2", "--quiet"],
    "study": ["--num-steps", "4", "--num-episodes", "2", "--engine", "process"],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path


def test_the_page_has_every_command():
    assert [" ".join(words[:2]) for words in COMMANDS] == [
        "data collect",
        "train --agent",
        "words chibit",
        "words chibit",
        "study language_rates",
        "study language",
        "report runs/language",
    ]


@pytest.mark.slow
def test_the_commands_run_one_after_the_other(folder, capsys):
    arms = ["text_random", "text_bag"]
    for words in COMMANDS:
        extra = SHORT.get(words[0], [])
        words = [
            w for i, w in enumerate(words) if not {w, words[i - 1]} & {"--num-steps", "--evaluate-every"}
        ]
        if words[0] == "study":
            rates = [f"{arm}_{rate}" for arm in arms for rate in ("1e-3", "3e-3")]
            extra = [*extra, "--data", "babyai-gotolocals8n4", "--arms"]
            extra += rates if words[1] == "language_rates" else arms
            words = [w for i, w in enumerate(words) if w not in ("1", "2", "3", "4")]
        assert main([*words, *extra]) == 0, capsys.readouterr().err
    runs = sorted(folder.glob("runs/language/*/result.json"))
    assert len(runs) == 2
    for run in runs:
        result = json.loads(run.read_text())
        assert [one["split"] for one in result["splits"]][:2] == ["seen", "held_out"]
        assert all(len(one["successes"]) == 4 for one in result["splits"]) and len(result["splits"]) == 11
    page = (folder / "runs" / "language" / "report.html").read_text()
    assert "Synonym minus nonsense" in page and "not known: no evidence" in page
    replayed_as_before(folder / "runs" / "language")


def replayed_as_before(study):
    """Splits that say what they said have the outcomes that they had, which stay beside the new ones."""
    before = {path: json.loads(path.read_text())["splits"] for path in study.glob("*/result.json")}
    command = [sys.executable, REPLAY, study, "color_nonsense", "blank", "--keep-as", "before"]
    for _ in range(2):  # the second time there is nothing to do
        subprocess.run(command, check=True)
    for path, splits in before.items():
        known = {one["split"]: one["successes"] for one in splits}
        known |= {f"{name}_before": known[name] for name in ("color_nonsense", "blank")}
        now = {one["split"]: one["successes"] for one in json.loads(path.read_text())["splits"]}
        assert now == known


def test_the_study_has_what_was_asked_for():
    study = STUDIES["language"]
    rates = dict.fromkeys(study.arms, 1e-3)
    rates["text_bag"] = 3e-3
    configs = study_configs("language", seeds=range(5), rates=rates)
    assert len(configs) == 6 * 3 * 5 and study.score_levels == dict.fromkeys(study.data, 90.0)
    by_arm = {config.arm: config.agent for config in configs}
    for arm, agent in by_arm.items():
        assert agent.learning_rate == agent.backbone_learning_rate == rates[arm]
    assert by_arm["text_words"].words == "chibit" and by_arm["text_words"].initializer == "random"
    assert by_arm["text_smollm2"].text_encoder == "frozen"
    trials = study_configs("language_rates", seeds=[100])
    assert {(c.agent.learning_rate, c.agent.backbone_learning_rate) for c in trials} == {
        (rate, rate) for rate in (3e-4, 1e-3, 3e-3)
    }
    assert all(config.holds_out for config in trials)


def test_an_arm_without_a_rate_is_told_where_to_get_it(folder, capsys):
    assert main(["study", "language", "--seeds", "0", "--dry-run"]) == 2
    assert "run chibit study language_rates with it, and give --rates-from" in " ".join(
        capsys.readouterr().err.split()
    )


def test_weights_that_are_not_here_are_named(folder, capsys):
    assert main(["data", "collect", "babyai-gotoobj", "--num-episodes", "8"]) == 0
    command = ["train", "--recipe", "text_smollm2", "--data", "babyai-gotoobj", "--num-steps", "2", "--quiet"]
    assert main(command) in (2, 4)
    assert "smollm2" in capsys.readouterr().err
    assert not list(folder.glob("runs/*/*"))

"""docs/no_simulator.md from the first line to the last, with fewer gradient steps."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from chibit.cli import main
from chibit.judging import judge as judging
from chibit.judging.fitting import fit_log
from judging_toys import QUICK

GUIDE = Path(__file__).parents[2] / "docs" / "no_simulator.md"


@pytest.fixture
def _quick(monkeypatch):
    def quick(train, held_out, config, **others):
        return fit_log(train, held_out, dataclasses.replace(QUICK, seed=config.seed), **others)

    monkeypatch.setattr(judging, "fit_log", quick)


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
def test_it_goes_from_arrays_to_a_decision(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```(python|sh)\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 8
    names = {}
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, str(GUIDE), "exec"), names)
            continue
        for line in text.splitlines():
            words = shlex.split(re.sub(r"(--num-steps) \d+", r"\1 30", line))
            assert main([*words[1:], *(["--device", "cpu"] if words[1] in ("train", "study") else [])]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for said in ("terminated", "verdict: ", "asked for 39", "asked for 20", "rule of thumb: ", "page: "):
        assert said in printed
    assert {path.parent.name for path in Path("runs/plant").glob("*/judgements.json")} == {
        *("clone", "td3_bc", "sequence"),
    }
    assert len(list(Path("runs/baselines").glob("*/judgements.json"))) == 6
    page = Path("runs/plant/report.html").read_text()
    for part in ("Against a clone", "Asked for and judged", "The log", "Actions", "Action error while"):
        assert part in page

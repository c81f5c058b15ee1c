"""``chibit study`` and ``chibit report``: flags reach the runs and the page, and refusals are one line."""

import importlib.util
import json
from pathlib import Path

import pytest

from chibit import quickstart
from chibit.cli import main
from chibit.core.shared_folder import MANIFEST
from chibit.recipes import RECIPES, SIZES
from chibit.studies import STUDIES
from chibit.study_runs import study_configs
from chibit.sweep import Outcome
from chibit.training.run_config import run_path

TABLES = [f"table{i}" for i in range(1, 7)]


@pytest.fixture
def written(tmp_path):
    """A study of synthetic run directories, three arms on two data sets."""
    path = Path(__file__).with_name("reporting") / "synthetic_runs.py"
    spec = importlib.util.spec_from_file_location("synthetic_runs", path)
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    arms = {"random": 0.0, "chibit": 4.0, "dt": -2.0}
    datasets = ["hopper-medium-v2", "walker2d-medium-v2"]
    return writer.write_study(tmp_path / "table2", arms, datasets, range(3), num_evaluations=4)


def refusal(capsys, *arguments):
    """Exit code and the one line of a refused command."""
    code = main(list(arguments))
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return code, error


@pytest.mark.parametrize("name", [*TABLES, "figure2", "figure3", "controls"])
def test_every_table_and_figure_is_a_study_of_known_arms(name):
    study = STUDIES[name]
    assert set(study.arms) <= set(RECIPES)
    assert study.arms
    assert study.data
    configs = study_configs(name, seeds=(3,))
    assert {config.seed for config in configs} == {3}


@pytest.mark.parametrize("name", STUDIES)
def test_registered_comparisons_are_of_two_arms_of_the_study_each_once(name):
    study = STUDIES[name]
    assert all(
        {arm, reference} <= set(study.arms) and arm != reference for arm, reference in study.comparisons
    )
    assert len(set(study.comparisons)) == len(study.comparisons)


def test_controls_have_every_control():
    arms = set(STUDIES["controls"].arms)
    assert arms >= {"random", "random_matched", "chibit_shuffled", "chibit_blocks", "chibit_positions"}
    assert arms >= {"iid", "markov", "ngram", "shuffled_text", "chibit_no_context", "random_no_context"}
    agents = {config.arm: config.agent for config in study_configs("controls", seeds=(0,), data=("d",))}
    assert agents["chibit_no_context"].context_length == 1
    assert agents["iid"].initializer.startswith("iid:")
    assert agents["chibit_shuffled"].transfer == "shuffled"


def test_figure_3_has_every_size_with_and_without_pretraining():
    arms = STUDIES["figure3"].arms
    for size in SIZES:
        assert f"random_{size}" in arms
        assert f"chibit_{size}" in arms


def test_seeds_share_everything_but_the_seed():
    first, second = study_configs("table5", seeds=(0, 1), arms=("chibit_frozen",), data=("d",))
    assert first.agent == second.agent
    assert (first.seed, second.seed) == (0, 1)


@pytest.mark.parametrize(
    ("flags", "evaluate_every"), [({}, 5000), ({"num_steps": 200}, 50), ({"num_steps": 3}, 1)]
)
def test_few_steps_are_evaluated_four_times_all_the_same(flags, evaluate_every):
    [config] = study_configs("table2", seeds=(0,), arms=("dt",), data=("d",), **flags)
    assert config.evaluate_every == evaluate_every


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel2"], "study: got 'tabel2'; did you mean 'table2'"),
        (["../table2"], "study: got '../table2'"),
        (["table2", "--arms", "chibbit"], "arm: unknown 'chibbit'; did you mean 'chibit'"),
        (["table2", "--arms", "dt", "dt"], "arms: got ['dt', 'dt'], expected each value once"),
        (["table2", "--seeds", "1", "1"], "seeds: got [1, 1], expected each value once"),
        (["table2", "--seeds", "-1"], "seeds[0]: got -1, expected 0 to"),
        (["table2", "--num-steps", "0"], "num_steps: got 0, expected at least 1"),
        (["controls", "--pretrain-steps", "0"], "pretrain_steps: got 0, expected at least 1"),
    ],
)
def test_study_refuses_in_one_line(arguments, message, capsys, tmp_path):
    code, error = refusal(capsys, "study", *arguments, "--root", str(tmp_path))
    assert code == 2
    assert message in error
    assert not list(tmp_path.iterdir())


def test_data_names_cannot_leave_the_folder_of_runs(tmp_path):
    for name in ("../../etc", "a/b/../../c", "x <b>", "..", "~/x", "C:\\data", ""):
        [config] = study_configs("table2", seeds=(0,), arms=("bc",), data=(name,))
        path = run_path(config, tmp_path, "table2")
        assert path.parent == tmp_path / "table2"
        assert path.name.isprintable()
        assert not path.name.startswith(".")


def test_a_dry_run_lists_states_and_costs_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    flags = ["--data", "hopper-medium", "--arms", "random", "iid", "bc", "--seeds", "0"]
    arguments = ["study", "controls", *flags, "--root", str(tmp_path), "--dry-run"]
    random, iid, bc = study_configs(
        "controls", seeds=(0,), arms=("random", "iid", "bc"), data=("hopper-medium",)
    )
    done = run_path(bc, tmp_path, "controls")
    done.mkdir(parents=True)
    (done / "result.json").write_text("{}")
    (run_path(iid, tmp_path, "controls") / "checkpoints" / "0000050000").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert [line.split()[0] for line in output.splitlines()[:3]] == ["to", "at", "finished"]
    assert str(run_path(random, tmp_path, "controls")) in output
    assert "3 runs: 1 finished, 1 begun, 1 to do" in output
    assert "to be pre-trained first: iid:2000, 2000 steps" in output
    assert "left with 1 at a time (those marked ? are rough" in output
    assert main([*arguments, "--engine", "pool", "--num-processes", "2"]) == 0
    assert "left with 2 at a time" in capsys.readouterr().out
    for engine in (["--engine", "ray"], ["--stack", "2"]):
        assert main([*arguments, *engine]) == 0
        output = capsys.readouterr().out
        assert "at a time" not in output and "the time in all depends" in output
    assert sorted(tmp_path.rglob("*")) == before


def test_report_passes_its_choices_on(written, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--target", "best", "--baseline", "dt", "--formats", "html", "csv"]
    assert main(["report", str(written), "--out", str(out), *flags]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {MANIFEST, "report.html", "scores.csv", "comparisons.csv"}
    page = (out / "report.html").read_text()
    assert "Differences from DT" in page
    assert "with the highest mean over all arms and seeds" in page
    assert f"page: {out / 'report.html'}" in capsys.readouterr().out


def test_report_without_a_page_names_its_files(written, tmp_path, capsys):
    assert main(["report", str(written), "--out", str(tmp_path / "out"), "--formats", "md", "tex"]) == 0
    output = capsys.readouterr().out
    assert f"markdown: {tmp_path / 'out' / 'report.md'}" in output
    assert f"latex: {tmp_path / 'out' / 'report.tex'}" in output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--baseline", "chibbit"],
            "baseline: got 'chibbit', expected an arm with a finished run: dt, random, chibit; did you mean",
        ),
        (["--out", "/proc/nothing/here"], "/proc/nothing"),
    ],
)
def test_report_refuses_in_one_line(written, flags, message, capsys):
    code, error = refusal(capsys, "report", str(written), *flags)
    assert code in (2, 4)
    assert message in error


def test_a_study_without_any_run_is_refused(tmp_path, capsys):
    assert refusal(capsys, "report", str(tmp_path / "absent"))[0] == 2


def test_mixed_schemas_half_written_and_foreign_folders_are_listed_and_counted_nowhere(written, capsys):
    first, second, third = sorted(written.glob("chibit-hopper*"))
    record = json.loads((first / "config.json").read_text())
    (first / "config.json").write_text(json.dumps({**record, "schema": 99}))
    (second / "result.json").write_text('{"schema": 1, "stat')
    (third / "provenance.json").unlink()
    (written / "holiday pictures").mkdir()
    assert main(["report", str(written)]) == 0
    assert "4 folders are not counted" in capsys.readouterr().out
    page = (written / "report.html").read_text()
    for name in (first.name, second.name, third.name, "holiday pictures"):
        assert name in page
    assert "schema 99" in page


def test_quickstart_ends_where_another_process_has_one_of_its_runs(tmp_path, monkeypatch, capsys):
    ends = [
        Outcome(tmp_path / "random", "finished"),
        Outcome(tmp_path / "chibit", "busy", "it is in other hands"),
    ]
    monkeypatch.setattr(quickstart, "run_all", lambda *_, **__: ends)
    monkeypatch.setattr("chibit.data.collect.mujoco.collect", lambda *_, **__: None)
    for later in ("_record_video", "print_report"):
        monkeypatch.setattr(quickstart, later, lambda *_: pytest.fail("it went on"))
    assert main(["quickstart", "--out", str(tmp_path / "out")]) == 4
    assert capsys.readouterr().err.endswith("chibit: it is in other hands\n")

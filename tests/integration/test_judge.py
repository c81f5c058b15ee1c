"""`chibit judge` on runs of the line, which has no simulator."""

import dataclasses
import gc
import json
import re
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import chibit
from chibit.cli import main
from chibit.commands import judge as judge_command
from chibit.core.config import from_json
from chibit.core.errors import InputError
from chibit.judging import judge as judging
from chibit.judging import judgement as judgement_rules
from chibit.judging.fitting import fit_log
from chibit.judging.judgement import Judgement
from chibit.reporting.read.judgements import read_judged
from chibit.reporting.read.run import read_run
from chibit.reporting.tables.judged import _choice_sentence, _dimensions, _regret, judged_choices
from chibit.training import loading
from chibit.training.loading import load_run
from judging_toys import QUICK, columns


@pytest.fixture(autouse=True)
def _a_quick_model(monkeypatch):
    def quick(train, held_out, config, **others):
        return fit_log(train, held_out, dataclasses.replace(QUICK, seed=config.seed), **others)

    monkeypatch.setattr(judging, "fit_log", quick)


@pytest.fixture(scope="module")
def log_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("line") / "line.npz"
    np.savez(path, **columns(60))
    return path


def train(log_file, out, *flags):
    arguments = ["train", "--data", str(log_file), "--out", str(out), "--device", "cpu", "--quiet"]
    assert main([*arguments, "--num-steps", "30", "--no-judge", *flags]) == 0
    return out


@pytest.fixture(scope="module")
def runs(log_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    shape = ["--n-layer", "1", "--n-embd", "16", "--context-length", "4", "--batch-size", "4"]
    return [
        train(log_file, folder / "clone", "--agent", "bc"),
        train(log_file, folder / "sequence", *shape, "--target-returns", "20", "-10"),
    ]


def judgements_of(run):
    return json.loads((run / "judgements.json").read_text())["judgements"]


def test_runs_are_judged_side_by_side(runs, capsys):
    assert main(["judge", *map(str, runs)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for said in ("line: 60 episodes", "clone of the log", "no confidence interval", "verdict: "):
        assert said in shown
    assert "the time limit is not known" in shown
    assert "episodes that policies may have learned from" in shown
    assert "fitted Q" not in shown
    clone, sequence = (judgements_of(run) for run in runs)
    assert [from_json(Judgement, one).target_return for one in clone] == [None]
    assert [from_json(Judgement, one).target_return for one in sequence] == [20.0, -10.0]
    assert [one["name"] for one in sequence] == ["sequence asked for 20", "sequence asked for -10"]


def test_all_finished_runs_of_a_folder_are_judged(runs, tmp_path, capsys):
    assert main(["judge", str(runs[0]), str(runs[0].parent)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("│ clone │") == 1 and "sequence" in shown
    for run in runs:
        assert judgements_of(run)
    assert main(["judge", *map(str, runs), "--target-returns", "7"]) == 0
    assert [one["target_return"] for run in runs for one in judgements_of(run)] == [None, 7.0]
    (tmp_path / "empty").mkdir()
    assert main(["judge", str(tmp_path / "empty")]) == 2
    (tmp_path / "begun" / "a").mkdir(parents=True)
    (tmp_path / "begun" / "a" / "config.json").write_text("{}")
    assert main(["judge", str(tmp_path / "begun")]) == 2
    assert "none of its 1 run is finished" in capsys.readouterr().err


def test_other_targets_and_estimates_are_there_for_the_asking(runs, capsys):
    assert (
        main(["judge", str(runs[1]), "--target-returns", "999", "--other-estimates", "--horizon", "9"]) == 0
    )
    shown = " ".join(capsys.readouterr().out.split())
    assert "asked for 999, more than the log has" in shown
    assert "not to be believed, sequence asked for 999: fitted Q evaluation" in shown
    (judgement,) = judgements_of(runs[1])
    assert judgement["in_model"]["length"] == 9


def test_what_a_run_held_out_is_what_it_is_judged_on(log_file, tmp_path, capsys):
    run = train(log_file, tmp_path / "held", "--agent", "bc", "--validation-share", "0.2")
    assert main(["judge", str(run)]) == 0
    assert "log's spread, on held-out episodes" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target-returns", "5"], "agent bc takes none"),
        (["--checkpoint", "7"], "no checkpoint of step 7"),
        (["--horizon", "0"], "horizon"),
    ],
)
def test_a_refusal_is_one_line(runs, flags, message, capsys):
    assert main(["judge", str(runs[0]), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_estimates_that_cannot_be_are_refused_before_anything_is_judged(tmp_path, capsys):
    np.savez(tmp_path / "log.npz", **columns(12) | {"actions": np.arange(12 * 40) % 3})
    run = train(tmp_path / "log.npz", tmp_path / "run", "--agent", "discrete_bc")
    capsys.readouterr()
    assert main(["judge", str(run), "--other-estimates"]) == 2
    printed = capsys.readouterr()
    assert "actions are discrete" in printed.err and not printed.out
    assert not (run / "judgements.json").exists()


def test_data_that_have_changed_since_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "log.npz", **columns(12))
    run = train(tmp_path / "log.npz", tmp_path / "run", "--agent", "bc", "--num-steps", "2")
    np.savez(tmp_path / "log.npz", **columns(12, seed=1))
    assert main(["judge", str(run)]) == 3
    error = capsys.readouterr().err
    assert "has changed since this run began" in error and error.count("\n") == 1


def test_a_run_on_a_share_of_the_data_is_judged_on_all(tmp_path, capsys):
    np.savez(tmp_path / "log.npz", **columns(24))
    run = train(tmp_path / "log.npz", tmp_path / "run", "--agent", "bc", "--data-fraction", "0.5")
    assert main(["judge", str(run)]) == 0
    assert "log: 24 episodes" in " ".join(capsys.readouterr().out.split())


def test_a_run_from_arrays_is_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = chibit.fit(columns(12), "bc", steps=2, out="run", device="cpu")
    assert main(["judge", "run"]) == 0
    assert "12 episodes" in capsys.readouterr().out and (result.path / "judgements.json").exists()


def test_a_judgement_that_cannot_be_kept_is_shown_all_the_same(runs, tmp_path, capsys):
    run = shutil.copytree(runs[0], tmp_path / "run")
    (run / "judgements.json").unlink(missing_ok=True)
    (run / "judgements.json").mkdir()  # somebody else's folder refuses as well
    assert main(["judge", str(run)]) == 0
    out, err = capsys.readouterr()
    assert "verdict: " in out and "not kept: " in err and "judgements.json" in " ".join(err.split())


def test_a_run_whose_data_are_not_here_says_from_where_their_path_is(tmp_path, monkeypatch, capsys):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    np.savez("log.npz", **columns(12))
    train("log.npz", "run", "--agent", "bc", "--num-steps", "2")
    monkeypatch.chdir(tmp_path)
    assert main(["judge", "there/run"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "there/run: 'log.npz': no such file or folder; a relative path is from the folder" in error


def test_a_log_that_was_moved_is_given_anew(tmp_path, capsys):
    np.savez(tmp_path / "log.npz", **columns(24))
    run = train(tmp_path / "log.npz", tmp_path / "run", "--agent", "bc", "--validation-share", "0.5")
    assert main(["judge", str(run)]) == 0
    (before,) = judgements_of(run)
    capsys.readouterr()
    (run / "judgements.json").unlink()
    (tmp_path / "log.npz").rename(tmp_path / "elsewhere.npz")
    assert main(["judge", str(run)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "no such file or folder" in error and error.endswith("or give --data")
    assert main(["judge", str(run), "--data", str(tmp_path / "elsewhere.npz")]) == 0
    (judgement,) = judgements_of(run)
    assert before["log"].pop("data") == "log" and judgement["log"].pop("data") == "elsewhere"
    assert judgement == before


def test_without_its_validation_data_a_moved_log_is_not_called_held_out(tmp_path, capsys):
    for seed, name in enumerate(("log", "other")):
        np.savez(tmp_path / f"{name}.npz", **columns(24, seed=seed))
    other = tmp_path / "other.npz"
    run = train(tmp_path / "log.npz", tmp_path / "run", "--agent", "bc", "--validation-data", str(other))
    (tmp_path / "log.npz").rename(tmp_path / "elsewhere.npz")
    for said in ("on held-out episodes", "may have learned from"):
        assert main(["judge", str(run), "--data", str(tmp_path / "elsewhere.npz")]) == 0
        assert said in " ".join(capsys.readouterr().out.split())
        other.unlink(missing_ok=True)


def test_runs_are_judged_on_a_log_that_they_have_not_learned_from(runs, tmp_path, capsys):
    run = shutil.copytree(runs[0], tmp_path / "run")
    (run / "judgements.json").unlink(missing_ok=True)
    np.savez(tmp_path / "later.npz", **columns(30, seed=5))
    assert main(["judge", str(run), "--data", str(tmp_path / "later.npz")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "later: 30 episodes" in shown and "verdict: " in shown
    assert "this is not the log that policies learned from" in shown and "may have learned from" in shown
    assert not (run / "judgements.json").exists()
    np.savez(
        tmp_path / "wide.npz", **columns(30) | {"actions": np.random.default_rng(0).normal(size=(30 * 40, 2))}
    )
    assert main(["judge", str(run), "--data", str(tmp_path / "wide.npz")]) == 2
    assert "data: wide has observation_shape (1,), act_dim 2, line has" in capsys.readouterr().err


def write_objects(path, order, seed=0):
    """A log of 24 episodes as JSON lines, whose observations are objects with their entries in an order."""
    log, names = columns(24, length=8, seed=seed), ("observations", "actions", "rewards", "truncations")
    with path.open("w") as file:
        for place, action, reward, end in zip(*(log[name].ravel().tolist() for name in names), strict=True):
            both = {"flow": place, "temp": place + 50.0}
            line = {"obs": {name: both[name] for name in order}, "action": action, "reward": reward}
            file.write(json.dumps(line | {"terminal": False, "timeout": end}) + "\n")
    return path


def test_a_log_with_its_columns_in_another_order_is_refused_and_can_be_named(tmp_path, capsys):
    one = write_objects(tmp_path / "one.jsonl", ["flow", "temp"])
    two = write_objects(tmp_path / "two.jsonl", ["temp", "flow"], seed=1)
    run = train(one, tmp_path / "run", "--agent", "bc")
    assert main(["judge", str(run), "--data", str(two)]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "data: the observations of two are obs.temp, obs.flow, those of one obs.flow, obs.temp" in error
    begun = ["train", "--agent", "bc", "--out", str(tmp_path / "no"), "--data", str(one)]
    for flags in (["--validation-data", str(two)], [str(two)]):  # as the second of two sets
        assert main([*begun, *flags]) == 2
        assert "give both in one order (--columns observations=obs.flow,obs.temp)" in capsys.readouterr().err
    turned = ["train", "--agent", "bc", "--out", str(tmp_path / "no"), "--data", str(two)]
    assert main([*turned, "--init-from", str(run), "--num-steps", "2", "--num-episodes", "0"]) == 2
    assert "init_from: the observations of two are obs.temp, obs.flow" in capsys.readouterr().err
    with pytest.raises(InputError, match="dataset: the observations of two are obs.temp, obs.flow"):
        chibit.judge(chibit.Policy.from_pretrained(run), chibit.load_dataset(two))
    named = ["--columns", "observations=obs.flow,obs.temp"]
    train(one, tmp_path / "named", "--agent", "bc", "--validation-data", str(two), *named)
    assert main(["judge", str(tmp_path / "named"), "--data", str(two)]) == 0


def test_attention_reads_other_data_by_the_runs_columns(tmp_path):
    one, two = (
        write_objects(tmp_path / f"{place}.jsonl", order, seed=place)
        for place, order in enumerate((["flow", "temp"], ["temp", "flow"]))
    )
    shape = ["--n-layer", "1", "--n-embd", "16", "--context-length", "4", "--batch-size", "4"]
    run = train(one, tmp_path / "run", *shape, "--columns", "observations=obs.flow,obs.temp")
    assert load_run(run).spec.observation_names == ("obs.flow", "obs.temp")
    assert main(["attention", str(run), "--data", str(two)]) == 0
    assert (run / "attention").is_dir()


def test_a_log_of_few_episodes_is_refused(tmp_path, capsys):
    np.savez(tmp_path / "few.npz", **columns(8))
    run = train(tmp_path / "few.npz", tmp_path / "run", "--agent", "bc")
    assert main(["judge", str(run)]) == 2
    assert "8 episodes, expected at least 10" in capsys.readouterr().err
    assert not (run / "judgements.json").exists()


def test_a_report_without_a_simulator_says_what_was_judged(runs, tmp_path, capsys):
    assert main(["judge", *map(str, runs)]) == 0
    capsys.readouterr()
    assert main(["report", str(runs[0].parent), "--out", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    page, markdown = ((tmp_path / f"report.{kind}").read_text() for kind in ("html", "md"))
    for text in (page, markdown, printed):
        assert "line, without a simulator: " in text
        assert "nothing to say" not in text
    for text in (page, markdown):
        assert "sequence asked for 20" in text and "clone of the log" in text
        assert "the model follows held-out episodes for" in text
    assert "damaged" not in page


def test_a_report_shows_judged_and_true_returns_side_by_side(pendulum_file, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "LEAST_EPISODES", 4)
    run = train(pendulum_file, tmp_path / "runs" / "bc", "--agent", "bc", "--num-episodes", "2")
    assert main(["judge", str(run)]) == 0
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Without a simulator" in page and "Judged and true: pendulum" in page
    assert "of what lies between" not in page  # there is one policy


def test_a_judgement_stands_beside_the_return_of_its_own_step_and_length(
    pendulum_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(judging, "LEAST_EPISODES", 4)
    flags = ["--agent", "bc", "--num-episodes", "2", "--evaluate-every", "10", "--checkpoint-every", "10"]
    run = train(pendulum_file, tmp_path / "bc", *flags)
    played = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    for checkpoint, step in (("last", 30), ("20", 20)):
        assert main(["judge", str(run), "--checkpoint", checkpoint]) == 0
        (one,) = read_judged(run, read_run(run))
        assert one.judgement.step == step
        assert one.judgement.name == ("bc" if step == 30 else "bc at step 20")
        (expected,) = [np.mean(line["episode_returns"]) for line in played if line["step"] == step]
        assert one.true_return == pytest.approx(expected)
    assert main(["judge", str(run), "--horizon", "20"]) == 0
    (one,) = read_judged(run, read_run(run))
    assert one.true_return is None  # the simulator's episodes are longer


def test_a_log_that_cannot_be_judged_keeps_no_other_from_it(runs, tmp_path, capsys):
    """Its own judgement of an earlier time stays, too."""
    np.savez(tmp_path / "flat.npz", **columns(12) | {"rewards": np.ones(12 * 40)})
    flat = train(tmp_path / "flat.npz", tmp_path / "flat", "--agent", "bc")
    (flat / "judgements.json").write_text("earlier")
    (runs[0] / "judgements.json").unlink(missing_ok=True)
    capsys.readouterr()
    assert main(["judge", str(flat), str(runs[0])]) == 2
    printed = capsys.readouterr()
    assert "not judged: flat: every reward is" in printed.out and "verdict: " in printed.out
    assert "1 of 2 runs not judged" in printed.err
    assert judgements_of(runs[0])
    assert (flat / "judgements.json").read_text() == "earlier"
    (tmp_path / "flat.npz").unlink()
    assert main(["judge", str(flat), str(runs[0])]) == 2
    printed = capsys.readouterr()
    assert re.search(r"not judged: .*flat\.npz", printed.out) and "verdict: " in printed.out


def test_runs_whose_actions_have_other_bounds_have_a_judge_of_their_own(runs, log_file, tmp_path):
    wide = train(log_file, tmp_path / "wide", "--agent", "bc", "--action-low=-2", "--action-high=2")
    asked = judge_command.JudgeArguments(runs=(runs[0], wide), device="cpu")
    found, unloaded = judge_command._try_all((runs[0], wide), asked)
    logs, failed = judge_command._logs(found, asked, progress=False)
    assert [len(log.runs) for log in logs] == [1, 1] and not (unloaded or failed)
    assert [log.train.spec.action_high for log in logs] == [found[0].spec.action_high, (2.0,)]


def test_a_run_that_cannot_be_loaded_keeps_no_other_from_it(runs, log_file, tmp_path, capsys):
    """Here and after a study; one model is in memory at a time."""
    for run in runs:
        shutil.copytree(run, tmp_path / "all" / run.name)
        (tmp_path / "all" / run.name / "judgements.json").unlink(missing_ok=True)
    bad = train(log_file, tmp_path / "all" / "a_bad_one", "--agent", "bc")
    for weights in bad.glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(b"")
    capsys.readouterr()
    assert main(["judge", str(tmp_path / "all")]) == 2
    printed = capsys.readouterr()
    assert re.search(r"not judged: .*a_bad_one", printed.out) and "verdict: " in printed.out
    assert "1 of 3 runs not judged" in printed.err
    assert judgements_of(tmp_path / "all" / "clone") and judgements_of(tmp_path / "all" / "sequence")
    judge_command.judge_runs([bad, tmp_path / "all" / "clone"], device="cpu", progress=False)
    assert "verdict: " in capsys.readouterr().out


def test_one_model_is_in_memory_at_a_time(runs, monkeypatch):
    alive = weakref.WeakSet()

    def counted(*arguments, **options):
        gc.collect()
        assert not alive
        alive.add((loaded := load_run(*arguments, **options)).agent)
        return loaded

    monkeypatch.setattr(loading, "load_run", counted)
    judge_command.judge_runs(runs, device="cpu", progress=False)
    assert len(judgements_of(runs[1])) == 2


def test_runs_of_one_name_are_told_apart_by_the_folders_around_them():
    paths = [Path(name) for name in ("/x/a/hopper", "/x/b/hopper", "/y/b/hopper", "/x/walker2d")]
    assert list(judge_command._names(paths).values()) == ["a/hopper", "x/b/hopper", "y/b/hopper", "walker2d"]
    assert judge_command._names([paths[0], paths[0]]) == {paths[0]: "hopper"}


def test_errors_by_dimension_are_a_table_where_there_are_several():
    table = _dimensions("plant", {"a": (0.5, 1.25)}, 0)
    assert [column.label for column in table.columns] == ["Policy", "0", "1"]
    assert [[cell.text for cell in row.cells] for row in table.rows] == [["a", "0.500", "1.25"]]
    assert _dimensions("plant", {"a": (0.5,)}, 0) is None
    assert _dimensions("plant", {"a": (0.5,) * 13}, 0) is None
    assert _dimensions("plant", {"a": (0.5, 1.0), "b": (0.5,)}, 0) is None


def test_a_report_says_what_the_judges_choice_costs():
    assert _regret("good", {"good": 70.0, "bad": 0.0, "middle": 100.0}) == (
        " In the simulator good loses 30% of what lies between the worst and the best."
    )
    assert not _regret("good", {"good": 70.0})
    assert not _regret("good", {"good": 70.0, "other": None})


def judged_run(arm, total, true, *, seed, target=None, has_number=True, run=None):
    """A policy of a run, as far as choosing among arms looks at it; the clone's return is 1."""
    estimate = SimpleNamespace(mean=total)
    judgement = SimpleNamespace(
        name=arm,
        target_return=target,
        total=estimate if has_number else None,
        log=SimpleNamespace(clone=SimpleNamespace(total=SimpleNamespace(mean=1.0))),
    )
    run = run or f"{arm}-{seed}"
    return SimpleNamespace(
        judgement=judgement, arm=arm, dataset="plant", true_return=true, seed=seed, run=run
    )


def test_arms_and_targets_are_chosen_over_their_runs_and_the_regret_is_said():
    policies = [
        judged_run("dt", 5.0, 40.0, target=9.0, seed=0), judged_run("dt", 7.0, 60.0, target=9.0, seed=1),
        judged_run("dt", 3.0, 80.0, target=2.0, seed=0), judged_run("dt", 3.2, 120.0, target=2.0, seed=1),
        judged_run("bc", 99.0, 0.0, seed=0), judged_run("bc", 99.0, 0.0, seed=1, has_number=False),
    ]  # fmt: skip
    study = SimpleNamespace(judged=tuple(policies))
    first, second, third = judged_choices(study)["plant"]
    assert (first.target_return, second.target_return, third.arm) == (9.0, 2.0, "bc")
    assert (first.gain, third.gain) == (5.0, -np.inf)  # half of its runs have no number
    assert first.gains == (4.0, 6.0) and first.true_return == 50.0
    assert not first.is_apart_from(second)  # of two runs nothing is known
    gains = {"far": (9.0, 9.1, 9.2), "near": (8.0, 9.0, 10.0), "low": (1.0, 1.1, 0.9)}
    far, near, low = (dataclasses.replace(first, gains=found) for found in gains.values())
    assert far.is_apart_from(low) and near.is_apart_from(low) and not far.is_apart_from(near)
    assert "judge takes DT asked for 9, and cannot tell it from DT asked for 2. In the simulator DT" in (
        _choice_sentence([first, second, third])
    )
    # A seed twice: runs of other settings are no repetitions of each other.
    other = judged_run("bc", 50.0, 0.0, seed=0, run="bc-longer")
    found = judged_choices(SimpleNamespace(judged=(*policies, other)))["plant"]
    assert [one.arm for one in found] == ["bc-0", "bc-longer", "dt", "dt", "bc-1"]


@pytest.fixture
def study_of_two(pendulum_file, tmp_path, monkeypatch, capsys):
    """`chibit study` of two arms and two seeds on data with a simulator, chosen by the judge."""
    monkeypatch.setattr(judging, "LEAST_EPISODES", 4)
    for name, value in (("_LEAST_FIT", -1e9), ("_MISFIT", 1e9), ("_TIMES_CLONE", 1e9), ("_BELOW", 1e9)):
        monkeypatch.setattr(judgement_rules, name, value)
    flags = ["--arms", "bc", "td3_bc", "--seeds", "0", "1", "--num-steps", "4", "--num-episodes", "2"]
    place = ["--data", str(pendulum_file), "--root", str(tmp_path), "--engine", "process", "--device", "cpu"]
    assert main(["study", "baselines", *flags, *place, "--select", "judge"]) == 0
    return tmp_path / "baselines", " ".join(capsys.readouterr().out.split())


def test_a_study_is_chosen_from_by_the_judge_and_its_regret_is_shown(study_of_two):
    folder, printed = study_of_two
    assert "arms by the judge" in printed and "verdict: " in printed
    page = (folder / "report.html").read_text()
    for text in (printed, (folder / "report.md").read_text(), page):
        assert "arms by the judge" in text and "pendulum, over all runs the judge takes" in text
        assert "of what lies between the worst and the best" in text
    assert "Judged and true: pendulum" in page and "Against a clone: pendulum" in page


def test_a_run_without_an_environment_is_judged_at_its_end(log_file, tmp_path, capsys):
    flags = ["--agent", "bc", "--num-steps", "30", "--quiet", "--device", "cpu", "--validation-share", "0.2"]
    command = ["train", "--data", str(log_file), "--out", str(tmp_path / "a" / "run"), *flags]
    assert main(command) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "30 steps; not evaluated" in printed and "verdict: " in printed and "scores" not in printed
    judged = (tmp_path / "a" / "run" / "judgements.json").read_bytes()
    assert main(command) == 0  # a finished run is not judged again
    assert "verdict" not in capsys.readouterr().out
    assert (tmp_path / "a" / "run" / "judgements.json").read_bytes() == judged
    shutil.copytree(tmp_path / "a" / "run", tmp_path / "b" / "run")
    (tmp_path / "b" / "run" / "judgements.json").unlink()
    moved = log_file.rename(log_file.with_suffix(".moved"))
    assert main([*command[:4], str(tmp_path / "b" / "run"), *flags]) == 0
    assert "not judged: the data of this finished run are not here" in capsys.readouterr().out
    moved.rename(log_file)
    assert main(["report", str(tmp_path / "a")]) == 0
    page = (tmp_path / "a" / "report.html").read_text()
    for part in ("Without a simulator", "The log", "Returns", "Observations", "Action error while learning"):
        assert part in page


def test_the_table_at_the_start_says_how_long_judging_takes(log_file, tmp_path, monkeypatch, capsys):
    flags = [
        "train",
        "--data",
        str(log_file),
        "--quiet",
        "--device",
        "cpu",
        "--agent",
        "bc",
        "--num-steps",
        "4",
    ]

    def said(name, *more):
        assert main([*flags, "--out", str(tmp_path / name), *more]) == 0
        log = " ".join((tmp_path / name / "train.log").read_text().split())
        return log, " ".join(capsys.readouterr().out.split())

    log, printed = said("judged")
    assert re.search(
        r"judging at the end \d+ s \(rough; in a model of the log; --no-judge leaves it out\)", log
    )
    assert "verdict: " in printed
    log, printed = said("left-out", "--no-judge")
    assert "judging at the end none (--no-judge; chibit judge does it)" in log
    assert "judged" not in printed and not (tmp_path / "left-out" / "judgements.json").exists()
    monkeypatch.setattr(judge_command, "LONG_SECONDS", 1.0)
    log, printed = said("longer")
    assert re.search(
        r"judging at the end none \(about \d+ s, longer than the run; chibit judge does it\)", log
    )
    assert "not judged: about" in printed and not (tmp_path / "longer" / "judgements.json").exists()
    assert main(["judge", str(tmp_path / "longer")]) == 0
    assert re.search(r"judging 1 run: about \d+ s \(rough, for one core\)\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("changes", "number", "message"),
    [
        ({}, 8, "8 episodes, expected at least 10"),
        ({"rewards": np.ones(20 * 40)}, 20, "every reward is 1"),
    ],
)
def test_a_run_that_cannot_be_judged_says_why_and_its_report_what_it_learned(
    tmp_path, capsys, changes, number, message
):
    np.savez(tmp_path / "log.npz", **columns(number) | changes)
    flags = ["--agent", "bc", "--num-steps", "4", "--quiet", "--device", "cpu", "--validation-share", "0.2"]
    place = ["--data", str(tmp_path / "log.npz"), "--out", str(tmp_path / "s" / "run")]
    assert main(["train", *place, *flags]) == 0
    assert f"not judged: log: {message}" in " ".join(capsys.readouterr().out.split())
    log = " ".join((tmp_path / "s" / "run" / "train.log").read_text().split())
    assert f"judging at the end none (log: {message}" in log
    assert main(["report", str(tmp_path / "s")]) == 0
    page = (tmp_path / "s" / "report.html").read_text()
    assert (
        "1 run finished without a simulator; chibit judge says what can be said, or why nothing can." in page
    )
    assert "Action error while learning" in page and "not counted" not in page
    assert "Against a clone" not in page


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-20],
        lambda text: text.replace('"schema": 1', '"schema": 9'),
        lambda text: text.replace('"name"', '"title"'),
        lambda text: text.replace('"members": [', '"members": [0.0, ', 1),
    ],
)
def test_damaged_judgements_are_listed_and_the_report_goes_on(runs, tmp_path, spoil):
    assert main(["judge", str(runs[0])]) == 0
    whole = (runs[0] / "judgements.json").read_text()
    try:
        (runs[0] / "judgements.json").write_text(spoil(whole))
        assert main(["report", str(runs[0].parent), "--out", str(tmp_path)]) == 0
        assert "clone/judgements.json" in (tmp_path / "report.md").read_text()
    finally:
        (runs[0] / "judgements.json").write_text(whole)

"""What is left of a study, by what finished runs took and else by stated figures."""

import dataclasses
import json
import time

import pytest

from chibit.agents import AGENTS
from chibit.core.formatting import shown_time
from chibit.core.run_dir import RunDir
from chibit.recipes import RECIPES
from chibit.sweep import forecast, progress
from chibit.sweep.progress import StudyProgress
from chibit.sweep.tasks import Outcome, make_tasks
from chibit.training.result import target_scores
from chibit.training.run_config import RunConfig, to_record


def config_of(recipe="random", **fields):
    defaults = {"num_steps": 100, "evaluate_every": 50, "num_episodes": 5}
    return dataclasses.replace(RECIPES[recipe].run(data="hopper-medium"), **{**defaults, **fields})


def finish(task, seconds_a_step, seconds_an_episode, targets=2):
    task.path.mkdir(parents=True)
    config = task.config
    episodes = 2 * config.num_episodes * targets
    result = {
        "status": "finished",
        "steps": config.num_steps,
        "train_seconds": seconds_a_step * config.num_steps,
    }
    result |= {"evaluation_seconds": seconds_an_episode * episodes, "score_unit": "return"}
    result |= {"scores": [target_scores(float(target), []) for target in range(targets)]}
    RunDir(task.path).write_result({**result, "behaviour_mean_return": 0.0, "behaviour_score": None})
    description = {"schema": 1, "arm": config.arm_name, "study": "s", "config": to_record(config)}
    (task.path / "config.json").write_text(json.dumps(description))


def tasks_of(root, *configs):
    return make_tasks(configs, root=root, study="s")


def test_without_any_finished_run_the_stated_figures_count(tmp_path):
    [task], dt = tasks_of(tmp_path, config_of()), AGENTS["dt"].config
    found = forecast.forecast(task, forecast.measure(tmp_path))
    assert not found.is_measured
    assert found.seconds_left == pytest.approx(100 * dt.seconds_a_step + 20 * dt.seconds_an_episode)


def test_a_finished_run_of_the_same_settings_decides(tmp_path):
    done, task = tasks_of(tmp_path, config_of(seed=0), config_of(seed=1, num_steps=200))
    finish(done, 0.5, 0.25)
    found = forecast.forecast(task, forecast.measure(tmp_path))
    assert found.is_measured
    assert found.seconds_left == pytest.approx(200 * 0.5 + 4 * 5 * 2 * 0.25)
    assert forecast.forecast(done, forecast.measure(tmp_path)) == forecast.PlannedRun(
        path=done.path, state="finished", seconds_left=0.0, is_measured=True
    )


def test_an_arm_of_the_same_shape_counts_but_another_size_does_not(tmp_path):
    done, same, large, frozen = tasks_of(
        tmp_path, config_of(), config_of("chibit"), config_of("random_3M"), config_of("gpt2")
    )
    finish(done, 0.5, 0.25)
    measured = forecast.measure(tmp_path)
    assert forecast.forecast(same, measured).seconds_left == pytest.approx(100 * 0.5 + 20 * 0.25)
    assert not forecast.forecast(large, measured).is_measured
    assert not forecast.forecast(frozen, measured).is_measured
    assert (
        forecast.forecast(frozen, measured).seconds_left > 20 * forecast.forecast(same, measured).seconds_left
    )


def test_what_a_checkpoint_has_done_is_not_left(tmp_path):
    [task] = tasks_of(tmp_path, config_of())
    whole = forecast.forecast(task, forecast.measure(tmp_path)).seconds_left
    (task.path / "checkpoints" / "0000000050").mkdir(parents=True)
    (task.path / "checkpoints" / "last").mkdir()
    assert forecast.forecast(task, forecast.measure(tmp_path)).seconds_left == pytest.approx(whole / 2)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"steps": "many"}', '{"steps": 1e999}'])
def test_damaged_and_foreign_results_are_left_out(tmp_path, content):
    folder = tmp_path / "other" / "run"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(content)
    assert forecast.measure(tmp_path) == forecast.Measurements()
    for described in (content, json.dumps({"config": to_record(config_of())})):
        (folder / "config.json").write_text(described)
        assert forecast.measure(tmp_path) == forecast.Measurements()


def test_sources_that_are_yet_to_be_pretrained_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path / "home"))
    tasks = tasks_of(tmp_path, config_of("iid"), config_of("iid", seed=1), config_of("ngram"), config_of())
    assert forecast.sources_left(tasks) == {"iid:2000": 2000, "ngram:2000": 2000}


def test_baselines_have_their_own_figures(tmp_path):
    config = RunConfig(data="d", agent=AGENTS["bc"].config(), num_steps=1000, num_episodes=0)
    [task] = tasks_of(tmp_path, config)
    found = forecast.forecast(task, forecast.measure(tmp_path))
    assert found.seconds_left == pytest.approx(1000 * config.agent.seconds_a_step)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(8, "8 s"), (95, "2 min"), (7200, "2.0 h"), (200_000, "2.3 days")]
)
def test_times_are_short(seconds, shown):
    assert shown_time(seconds) == shown


def test_no_more_runs_are_at_a_time_than_there_are_and_the_longest_is_waited_for(tmp_path):
    tasks = tasks_of(tmp_path, config_of(seed=0), config_of(seed=1), config_of(seed=2, num_steps=1_000))
    finish(tasks[0], 0.5, 0.25)
    plan = forecast.make_plan(tasks, tmp_path, 8)
    long = max(run.seconds_left for run in plan.runs)
    assert long > 500 and plan.seconds_left == pytest.approx(long) and plan.side_by_side == 2
    assert forecast.make_plan(tasks[:1], tmp_path, 8).side_by_side == 1
    assert forecast.make_plan(tasks[:2], tmp_path, 8).seconds_left == plan.runs[1].seconds_left > 0


def test_where_nobody_knows_how_many_runs_are_at_a_time_there_is_no_time_in_all(tmp_path):
    plan = forecast.make_plan(tasks_of(tmp_path, config_of(seed=0), config_of(seed=1)), tmp_path, None)
    assert plan.side_by_side is None and plan.seconds_left is None
    assert all(run.seconds_left > 0 for run in plan.runs)
    assert "depends on how many runs the engine has room for" in str(plan)


def test_a_log_has_a_line_of_the_study_now_and_then(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_REFRESH_SECONDS", 0.001)
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.01)
    text, began = "", time.monotonic()
    with StudyProgress(tasks_of(tmp_path, config_of(), config_of(seed=1)), tmp_path, enabled=True):
        while text.count("\n") < 4 and time.monotonic() < began + 60:
            time.sleep(0.01)
            text += capsys.readouterr().err
    lines = (text + capsys.readouterr().err).splitlines()
    most = (time.monotonic() - began) / 0.01 + 2
    assert 4 <= len(lines) <= most and not any("\x1b" in line for line in lines)
    assert lines[0] == "  0 of 2 done, 0 running, 2 waiting"


def test_progress_counts_and_says_how_much_is_left(tmp_path, capsys):
    tasks = tasks_of(tmp_path, *(config_of(seed=seed) for seed in range(4)))
    with StudyProgress(tasks, tmp_path, enabled=True) as shown:
        shown.ended(Outcome(tasks[0].path, "skipped"))
        for task in tasks[1:3]:
            shown.began(task)
        tasks[1].path.mkdir(parents=True)
        (tasks[1].path / "metrics.jsonl").write_text('{"step": 0, "train/loss": 1}\n')
        shown.refresh()
        (tasks[1].path / "metrics.jsonl").write_text('{"step": 50, "train/loss": 1}\n')
        shown.refresh()
        note = shown._bars.tasks[0].fields["note"]
        assert note.startswith("1 of 4 done, 2 running, 1 waiting, about ")
        assert note.endswith(" left")
        shown.ended(Outcome(tasks[1].path, "failed", "the disk is [full]"))
        shown.ended(Outcome(tasks[2].path, "finished"))
    error = capsys.readouterr().err
    assert f"failed: {tasks[1].path.name}: the disk is [full] (1 of 4 done, 1 failed, about " in error
    assert "4 runs: 2 of 4 done, 1 failed" in error


def test_nothing_is_left_once_the_last_run_is_over(tmp_path, capsys):
    tasks = tasks_of(tmp_path, config_of(), config_of(seed=1))
    with StudyProgress(tasks, tmp_path, enabled=True) as shown:
        for task in tasks:
            shown.began(task)
        shown._left = ", about 5 s left"
        for task in tasks:
            shown.ended(Outcome(task.path, "finished"))
    first, last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finished: ")]
    assert first.endswith("(1 of 2 done, about 5 s left)") and last.endswith("(2 of 2 done)")

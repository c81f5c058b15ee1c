"""What makes a comparison fair: fresh starts, shared parts of the data, schedules that follow the run."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chibit.agents import AGENTS
from chibit.core.config import to_json
from chibit.core.errors import DamagedFileError, InputError
from chibit.core.run_dir import RunDir
from chibit.data.load import load_dataset
from chibit.models.gpt import GPTShape
from chibit.recipes import RECIPES
from chibit.reporting.read.registration import Registration, read_registration, register
from chibit.reporting.read.run import read_run
from chibit.studies import FAIR_ARMS, STUDIES
from chibit.study_runs import study_configs
from chibit.sweep.rates import Trial, choose, choose_rates
from chibit.training import offline
from chibit.training.held_out import HeldOut, HeldOutError
from chibit.training.offline import train
from chibit.training.run_config import RunConfig, from_record, run_path, to_record
from chibit.training.run_data import open_data

SMALL = {"context_length": 4, "batch_size": 4, "gpt": GPTShape(n_layer=1, n_embd=16)}


def run_of(data, **fields):
    agent = fields.pop("agent", {})
    defaults = {"num_steps": 6, "evaluate_every": 2, "num_episodes": 2, "log_every": 3, "device": "cpu"}
    return RunConfig(
        data=str(data), agent=AGENTS["dt"].config(**{**SMALL, **agent}), **{**defaults, **fields}
    )


@pytest.fixture
def measured(monkeypatch):
    """Of each batch that an action error is measured on: the states of its real steps, and the error."""
    found = []
    action_error = AGENTS["dt"].agent.action_error

    def watch(agent, batch):
        error = action_error(agent, batch)
        found.append((batch.states[batch.attention_mask].numpy().copy(), error))
        return error

    monkeypatch.setattr(AGENTS["dt"].agent, "action_error", watch)
    return found


def nearest(states, others):
    """(N,) distance of each of N states to the nearest of the others."""
    return np.array([np.abs(others - state).max(-1).min() for state in states])


def test_every_evaluation_starts_from_fresh_states_that_other_arms_share(pendulum_file, tmp_path):
    seeds = {}
    for name, agent, seed in (("a", {}, 3), ("b", {"learning_rate": 1e-2}, 3), ("c", {}, 4)):
        train(run_of(pendulum_file, agent=agent, seed=seed), tmp_path / name, progress=False)
        lines = RunDir(tmp_path / name).read_log("evaluations.jsonl")
        seeds[name] = {(line["step"], line["target_return"]): tuple(line["env_seeds"]) for line in lines}
    assert seeds["a"] == seeds["b"]
    played = [seed for starts in {step: v for (step, _), v in seeds["a"].items()}.values() for seed in starts]
    assert len(played) == 6 == len(set(played))  # three evaluations of two episodes, no start twice
    assert not set(played) & {seed for starts in seeds["c"].values() for seed in starts}


def test_the_held_out_episodes_are_not_trained_on_and_their_error_is_what_the_model_makes(
    pendulum_file, tmp_path, monkeypatch, measured
):
    seen = []
    update = AGENTS["dt"].agent.update

    def watch(agent, batch):
        seen.append(batch.states[batch.attention_mask].numpy().copy())
        return update(agent, batch)

    monkeypatch.setattr(AGENTS["dt"].agent, "update", watch)
    config = run_of(pendulum_file, validation_share=0.34, num_episodes=0, num_steps=60, log_every=30)
    train(config, tmp_path / "run", progress=False)
    whole = load_dataset(str(pendulum_file), progress=False)
    part, held_out = whole.held_out_split(0.34, 0)
    mean, std = np.float32(part.spec.state_mean), np.float32(part.spec.state_std)
    allowed, forbidden = ((data.observations - mean) / std for data in (part, held_out))
    states = np.concatenate(seen)
    assert nearest(states, allowed).max() < 1e-4 < nearest(states, forbidden).min()
    batches = 256 // SMALL["batch_size"]  # of all that is held out, of its best episodes, of the others
    lines = RunDir(tmp_path / "run").read_log("metrics.jsonl")
    assert len(measured) == len(lines) * 3 * batches == 2 * 3 * batches
    for i, line in enumerate(lines):
        first = measured[i * 3 * batches :][:batches]
        assert nearest(np.concatenate([states for states, _ in first]), forbidden).max() < 1e-4
        assert line["held_out/action_error"] == pytest.approx(np.mean([error for _, error in first]))


def test_the_held_out_error_leaves_the_run_as_it_was_to_the_bit(pendulum_file, tmp_path, monkeypatch):
    from chibit.training import offline

    config = run_of(pendulum_file, validation_share=0.34, num_episodes=0)
    train(config, tmp_path / "a", progress=False)
    monkeypatch.setattr(offline.HeldOut, "__call__", lambda self: {})
    monkeypatch.setattr(offline.HeldOut, "warning", lambda self, metrics: None)
    train(config, tmp_path / "b", progress=False)
    first, second = (RunDir(tmp_path / name).read_log("metrics.jsonl") for name in "ab")
    assert [line["train/loss"] for line in first] == [line["train/loss"] for line in second]


def test_a_fraction_is_shared_by_arms_and_redrawn_by_seeds(pendulum_file, tmp_path):
    parts = []
    for name, agent, seed in (("a", {}, 0), ("b", {"learning_rate": 1e-2}, 0), ("c", {}, 1)):
        config = run_of(pendulum_file, agent=agent, seed=seed, data_fraction=0.5, num_episodes=0)
        train(config, tmp_path / name, progress=False)
        record = json.loads((tmp_path / name / "provenance.json").read_text())
        parts.append((record["part_hash"], record["data_episodes"], record["data_hash"]))
    assert parts[0] == parts[1] and parts[0][0] != parts[2][0]
    whole = load_dataset(str(pendulum_file), progress=False)
    assert parts[0][1] < whole.num_episodes
    assert parts[0][2] == parts[2][2] == whole.content_hash  # one data set to a report, whatever the part
    config = run_of(pendulum_file, data_fraction=0.5)
    train(config, tmp_path / "evaluated", progress=False)
    run = read_run(tmp_path / "evaluated")
    assert run.dataset.endswith("-50pct")


def test_every_agent_measures_a_held_out_error(pendulum_file, tmp_path):
    agent = AGENTS["awr"].config(refresh_every=4)
    config = RunConfig(
        data=str(pendulum_file), agent=agent, validation_share=0.5, num_steps=4, num_episodes=0
    )
    train(config, tmp_path / "run", progress=False)
    [line] = RunDir(tmp_path / "run").read_log("metrics.jsonl")
    assert 0 < line["held_out/action_error"] < 16


def test_shares_out_of_range_are_refused(pendulum_file, tmp_path):
    for name, value in (("data_fraction", 0.0), ("data_fraction", 1.5), ("data_fraction", float("nan")),
                        ("validation_share", 1.0), ("validation_share", -0.1)):  # fmt: skip
        with pytest.raises(InputError, match=name):
            run_of(pendulum_file, **{name: value})
    with pytest.raises(InputError, match="fraction: 1e-06 of 6 episodes is none"):
        train(run_of(pendulum_file, data_fraction=1e-6), tmp_path / "none", progress=False)


def test_schedules_are_five_percent_of_the_run_unless_given():
    def of(num_steps, **agent):
        return to_record(run_of("x", num_steps=num_steps, agent=agent))["agent"]

    assert (of(100_000)["warmup_steps"], of(100_000)["auxiliary_decay_steps"]) == (5_000, 5_000)
    assert (of(60)["warmup_steps"], of(60)["auxiliary_decay_steps"]) == (3, 3)
    assert of(60, warmup_steps=50)["warmup_steps"] == 50
    config = run_of("x", num_steps=400)
    assert to_record(from_record(to_record(config))) == to_record(config)


def test_the_warm_up_of_a_short_run_ends_within_it(pendulum_file, tmp_path):
    config = run_of(pendulum_file, num_steps=40, num_episodes=0, log_every=1)
    train(config, tmp_path / "run", progress=False)
    rates = [line["train/learning_rate"] for line in RunDir(tmp_path / "run").read_log("metrics.jsonl")]
    assert rates[0] == pytest.approx(5e-5) and rates[1:] == pytest.approx([1e-4] * 39)


def test_a_recipe_shrinks_with_the_run_of_a_study():
    def warmups(num_steps, arm="dt", study="table2"):
        (run,) = study_configs(study, arms=[arm], data=["hopper-medium-v2"], seeds=[0], num_steps=num_steps)
        return to_record(run)["agent"]["warmup_steps"]

    assert warmups(None) == 10_000  # Chen et al.'s, and not a share
    assert warmups(1_000) == 100
    assert warmups(1_000, arm="random") == 50


def test_names_of_runs_are_what_they_were_before_there_were_fractions(tmp_path):
    usual = {"device": "auto", "log_every": 100}
    config = run_of("hopper-medium", num_steps=100_000, agent={"warmup_steps": 5_000}, **usual)
    plain = run_path(config, tmp_path, "s")
    assert plain.name == "random-hopper-medium-s0-09fdeac9"
    assert plain != run_path(dataclasses.replace(config, data_fraction=0.5), tmp_path, "s")
    assert plain != run_path(dataclasses.replace(config, validation_share=0.5), tmp_path, "s")


def test_the_backbone_rate_moves_blocks_and_timesteps_of_any_initializer(pendulum_file):
    from chibit.agents import make_agent
    from chibit.core.runtime import resolve_runtime

    dataset = load_dataset(str(pendulum_file), progress=False)
    for init in ("random", "random_matched:markov", "markov"):
        shape = {"gpt": GPTShape()} if init != "random" else {}
        settings = {**SMALL, **shape, "initializer": init, "warmup_steps": 0, "weight_decay": 0.0}
        config = AGENTS["dt"].config(**settings, learning_rate=1e-3, backbone_learning_rate=1e-1)
        agent = make_agent(config, dataset.spec, resolve_runtime("cpu", "fp32", 1))
        sampler = agent.sampler(dataset, np.random.default_rng(0))
        before = {name: p.detach().clone() for name, p in agent.modules().named_parameters()}
        agent.update(sampler.sample())
        for name, parameter in agent.modules().named_parameters():
            largest = float((parameter.detach() - before[name]).abs().max())
            is_backbone = ".backbone." in f".{name}" or ".timesteps." in f".{name}"
            assert largest < (0.11 if is_backbone else 0.0011), name
            if is_backbone and not name.endswith("bias"):
                assert largest > 0.05, name  # AdamW's first step is the rate itself


def trial(rate, error, score):
    return Trial(rate=rate, error=error, score=score, num_seeds=2)


def test_the_rate_with_the_lowest_error_is_chosen_and_among_ties_the_best_score():
    assert choose([trial(1e-3, 0.10, 50.0), trial(3e-3, 0.09, 20.0)]).rate == 3e-3
    assert choose([trial(1e-3, 0.1000, 50.0), trial(3e-3, 0.0995, 20.0)]).rate == 1e-3


def test_rates_are_read_from_runs_and_what_is_missing_is_named(pendulum_file, tmp_path):
    for rate in (1e-3, 3e-3):
        agent = {"backbone_learning_rate": rate}
        config = run_of(pendulum_file, agent=agent, validation_share=0.34, arm=f"random_{rate:g}")
        train(config, tmp_path / "rates" / f"{rate}", progress=False)
    rates = choose_rates(tmp_path / "rates")
    assert set(rates) == {"random"} and rates["random"] in (1e-3, 3e-3)
    runs = study_configs("fair", seeds=[0], arms=["random"], rates=rates)
    assert {run.agent.backbone_learning_rate for run in runs} == {rates["random"]}
    with pytest.raises(InputError, match="no backbone learning rate was chosen for arm 'chibit'"):
        study_configs("fair", seeds=[0], rates=rates)
    with pytest.raises(InputError, match="no finished run"):
        choose_rates(tmp_path)
    config = run_of(pendulum_file, agent={"backbone_learning_rate": 3e-3}, validation_share=0.34, seed=1,
                    arm="random_0.003")  # fmt: skip
    train(config, tmp_path / "rates" / "other", progress=False)
    with pytest.raises(InputError, match="same seeds"):
        choose_rates(tmp_path / "rates")
    shutil.rmtree(tmp_path / "rates" / "other")
    train(
        dataclasses.replace(config, seed=0, num_steps=config.num_steps + 1),
        tmp_path / "rates" / "z",
        progress=False,
    )
    with pytest.raises(InputError, match="two runs of a rate and seed, or runs on other data"):
        choose_rates(tmp_path / "rates")
    shutil.rmtree(tmp_path / "rates" / "z")
    begun = tmp_path / "rates" / "0.003"
    (begun / "result.json").rename(begun / "later.json")
    with pytest.raises(InputError, match=r"0\.003: is not finished"):
        choose_rates(tmp_path / "rates")
    RunDir(begun).write_divergence(1, "the loss is nan", [])
    assert choose_rates(tmp_path / "rates") == {"random": 1e-3}
    train(dataclasses.replace(config, seed=2), tmp_path / "rates" / "another seed", progress=False)
    assert choose_rates(tmp_path / "rates") == {"random": 1e-3}, "a rate that diverged once is no trial"
    shutil.rmtree(tmp_path / "rates" / "another seed")
    (begun / "later.json").rename(begun / "result.json")
    description = json.loads((begun / "config.json").read_text())
    (begun / "config.json").write_text(json.dumps({**description, "arm": "random_matched"}))
    with pytest.raises(InputError, match=r"0\.003: no backbone learning rate by which its arm is named"):
        choose_rates(tmp_path / "rates")
    (begun / "config.json").write_text(json.dumps({**description, "config": {"corpus": "iid"}}))
    with pytest.raises(InputError, match=r"0\.003: is of chibit pretrain, not a trial"):
        choose_rates(tmp_path / "rates")


def test_the_arms_of_the_fair_study_differ_in_their_initializer_and_rate_alone():
    rates = dict.fromkeys(FAIR_ARMS, 1e-3)
    runs = study_configs("fair", seeds=[0], data=["hopper-medium-replay"], rates=rates)
    stripped = {
        dataclasses.replace(run, arm="", agent=dataclasses.replace(run.agent, initializer="random"))
        for run in runs
    }
    assert len(runs) == 5 and len(stripped) == 1
    (run,) = stripped
    assert (run.num_episodes, run.target_returns, run.num_steps) == (20, (3600.0,), 10_000)


def test_arms_that_are_called_paper_have_eq_8_as_printed():
    for name in ("chibit_paper", "chibit_no_language", "chibit_random_positions", "gpt2", "clip"):
        assert RECIPES[name].settings["similarity_form"] == "paper_sum", name
    fractions = {run.data_fraction for run in study_configs("low_data", rates=dict.fromkeys(FAIR_ARMS, 1e-3))}
    assert fractions == set(STUDIES["low_data"].fractions)


def test_kept_results_are_runs_that_are_skipped_and_reported_without_the_folders_of_a_machine(
    pendulum_file, tmp_path
):
    config = run_of(pendulum_file, arm="random")
    path = run_path(config, tmp_path / "runs", "s")
    result = train(config, path, study="s", progress=False)
    record = json.loads((path / "provenance.json").read_text())
    (path / "provenance.json").write_text(
        json.dumps({**record, "argv": ["/opt/x/chibit", "--root", "/home/me", "--out=/home/you"]})
    )
    register(tmp_path / "runs" / "s", Registration(comparisons=(("chibit", "random"),)))
    script = Path(__file__).parents[2] / "scripts" / "export_results.py"
    for source, out in ((tmp_path / "runs", tmp_path / "kept"), (tmp_path / "kept", tmp_path / "back")):
        subprocess.run([sys.executable, str(script), str(source / "s"), "--out", str(out)], check=True)
    kept = tmp_path / "kept" / "s" / path.name
    assert json.loads((kept / "provenance.json").read_text())["argv"] == [
        "chibit",
        "--root",
        "me",
        "--out=you",
    ]
    assert not (kept / "checkpoints").exists()
    assert read_registration(tmp_path / "back" / "s").comparisons == (("chibit", "random"),)
    other = {"schema": 1, **to_json(Registration(comparisons=(("random", "chibit"),)))}
    (tmp_path / "back" / "s" / "study.json").write_text(json.dumps(other))
    command = [sys.executable, str(script), str(tmp_path / "back" / "s"), "--out", str(tmp_path / "kept")]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode and "study.json: differs from" in refused.stderr
    assert read_registration(tmp_path / "kept" / "s").comparisons == (("chibit", "random"),)
    again = train(config, tmp_path / "back" / "s" / path.name, study="s", progress=False)
    assert again == result and not (tmp_path / "back" / "s" / path.name / "checkpoints").exists()
    curves = read_run(kept).curves
    assert [curve.mean_returns.tolist() for curve in curves] == [
        curve.mean_returns.tolist() for curve in read_run(path).curves
    ]


def test_errors_can_be_measured_on_other_data(pendulum_file, tmp_path):
    whole = load_dataset(str(pendulum_file), progress=False)
    columns = dict(np.load(pendulum_file))
    rows = slice(0, int(whole.episode_starts[3]))
    other = {name: column[rows] for name, column in columns.items() if column.ndim}
    changed = dict(other, rewards=other["rewards"] - 1.0)
    np.savez(tmp_path / "other.npz", **changed)
    np.savez(tmp_path / "same.npz", **other)
    config = run_of(pendulum_file, validation_data=str(tmp_path / "other.npz"), num_episodes=0)
    train(config, tmp_path / "run", progress=False)
    plain = run_of(pendulum_file, num_episodes=0)
    train(plain, tmp_path / "plain", progress=False)
    lines, plain_lines = (RunDir(tmp_path / name).read_log("metrics.jsonl") for name in ("run", "plain"))
    assert all(line["held_out/action_error"] > 0 for line in lines)
    assert [line["train/loss"] for line in lines] == [line["train/loss"] for line in plain_lines]
    record = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert record["data_episodes"] == whole.num_episodes
    copied = run_of(pendulum_file, validation_data=str(tmp_path / "same.npz"), num_episodes=0)
    with pytest.raises(InputError, match="all its episodes are in"):
        train(copied, tmp_path / "copied", progress=False)
    np.savez(tmp_path / "narrow.npz", **{**other, "observations": other["observations"][:, :2],
             "next_observations": other["next_observations"][:, :2]})  # fmt: skip
    narrow = run_of(pendulum_file, validation_data=str(tmp_path / "narrow.npz"), num_episodes=0)
    with pytest.raises(InputError, match=r"observation_shape \(2,\).*give data of the same sizes"):
        train(narrow, tmp_path / "narrow", progress=False)
    with pytest.raises(InputError, match="beside validation_share 0.1, expected one of them"):
        run_of(pendulum_file, validation_data="x.npz", validation_share=0.1)


def test_errors_on_other_data_are_those_of_states_as_the_model_sees_them(tmp_path, measured):
    draw = np.random.default_rng(0)
    states = draw.normal(size=(60, 2))
    columns = {"rewards": draw.normal(size=60), "terminations": np.arange(60) % 10 == 9}
    columns["actions"] = np.tanh(states[:, :1])
    for name, mean in (("log", 52.0), ("other", 52.002)):
        np.savez(tmp_path / f"{name}.npz", observations=mean + 3e-5 * states, **columns)
    config = run_of(tmp_path / "log.npz", validation_data=str(tmp_path / "other.npz"), num_episodes=0)
    dataset, held_out = open_data(config)
    assert held_out.spec.state_offset == dataset.spec.state_offset
    apart = (held_out.observations - dataset.observations).mean(axis=0)
    np.testing.assert_allclose(apart, 0.002, rtol=1e-3)
    train(config, tmp_path / "run", progress=False)
    batches = 256 // SMALL["batch_size"]
    means = [states.mean() for states, _ in measured[: 3 * batches]]
    assert min(means[: 2 * batches]) > 10 and np.abs(means[2 * batches :]).max() < 2


def test_a_run_is_bound_to_its_validation_data(pendulum_file, tmp_path):
    columns = {name: column for name, column in np.load(pendulum_file).items() if name != "env_id"}
    path, other = tmp_path / "run", tmp_path / "other.npz"
    np.savez(other, **{**columns, "rewards": columns["rewards"] - 1.0})
    config = run_of(pendulum_file, validation_data=str(other), num_episodes=0, checkpoint_every=2)
    result = train(config, path, progress=False)
    kept = other.read_bytes()
    np.savez(other, **{**columns, "rewards": columns["rewards"] - 2.0})
    for is_finished in (True, False):
        if not is_finished:
            (path / "result.json").unlink()
        with pytest.raises(DamagedFileError, match="has changed since this run began .validation data "):
            train(config, path, progress=False)
    record = json.loads((path / "provenance.json").read_text())
    assert record.pop("held_out_hash") != record["data_hash"]
    (path / "provenance.json").write_text(json.dumps(record))  # as an earlier version wrote it
    assert train(config, path, progress=False)["steps"] == result["steps"]
    other.unlink()  # a finished run needs it no more
    assert train(config, path, progress=False)["steps"] == result["steps"]
    (path / "result.json").unlink()
    with pytest.raises(InputError, match=r"other\.npz': no such file or folder$"):
        train(config, path, progress=False)
    other.write_bytes(kept)
    assert train(config, path, progress=False)["steps"] == result["steps"]


def test_a_run_holds_out_the_fold_of_its_seed(pendulum_file, tmp_path, capsys):
    config = run_of(pendulum_file, validation_folds=3, num_episodes=0, seed=4)
    train(config, tmp_path / "run", progress=False)
    record = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert record["data_episodes"] == 4
    assert "2 of 6 episodes are held out, fold 2 of 3" in (tmp_path / "run" / "train.log").read_text()
    assert all(
        line["held_out/action_error"] > 0 for line in RunDir(tmp_path / "run").read_log("metrics.jsonl")
    )
    with pytest.raises(InputError, match="validation_folds: got 3 beside validation_share 0.1"):
        run_of(pendulum_file, validation_folds=3, validation_share=0.1)
    with pytest.raises(InputError, match="expected 2 to 6"):
        train(run_of(pendulum_file, validation_folds=7), tmp_path / "more", progress=False)


def test_few_held_out_episodes_and_none_without_an_environment_are_said(pendulum_file, tmp_path):
    def log_of(name, data=pendulum_file, **fields):
        train(run_of(data, num_episodes=0, num_steps=2, **fields), tmp_path / name, progress=False)
        return (tmp_path / name / "train.log").read_text()

    assert "2 of 6 episodes are held out, too few" in log_of("few", validation_share=0.34)
    assert "too few" not in log_of("folds", validation_folds=3)
    assert "nothing is held out" not in log_of("played")
    columns = {name: column for name, column in np.load(pendulum_file).items() if name != "env_id"}
    np.savez(tmp_path / "plant.npz", **columns)
    assert "nothing is held out" in log_of("plant", tmp_path / "plant.npz")


@pytest.mark.parametrize("best_by", ["return", "held_out"])
def test_the_best_checkpoint_is_chosen_by_the_held_out_error_only_if_asked(
    pendulum_file, tmp_path, monkeypatch, best_by
):
    """Errors fall until step 4 and returns rise until step 2."""
    errors = iter([3.0, 2.0, 5.0])
    monkeypatch.setattr(
        HeldOut, "__call__", lambda self: {"held_out/action_error": 1, "train/action_error": 1}
    )
    monkeypatch.setattr(HeldOutError, "__call__", lambda self: next(errors))
    scores = iter([9.0, 8.0, 7.0])
    monkeypatch.setattr(offline, "evaluation_score", lambda evaluation: next(scores))
    config = run_of(pendulum_file, validation_share=0.34, best_by=best_by)
    train(config, tmp_path / "run", progress=False)
    best = int((tmp_path / "run" / "checkpoints" / "best").read_text())
    assert best == {"return": 2, "held_out": 4}[best_by]


def test_without_an_environment_the_held_out_error_still_names_a_best_checkpoint(
    pendulum_file, tmp_path, monkeypatch
):
    told = []
    monkeypatch.setattr(offline, "make_trackers", lambda run, config: [lambda *what: told.append(what)])
    config = run_of(pendulum_file, validation_share=0.34, best_by="held_out", num_episodes=0, log_every=2)
    train(config, tmp_path / "run", progress=False)
    lines = RunDir(tmp_path / "run").read_log("metrics.jsonl")
    best = min(lines, key=lambda line: line["held_out/action_error"])["step"]
    for name in ("held_out/action_error", "held_out/best_tenth_action_error", "held_out/dimension_0"):
        assert [(step, told_[name]) for step, told_ in told] == [(one["step"], one[name]) for one in lines]
    assert int((tmp_path / "run" / "checkpoints" / "best").read_text()) == best
    with pytest.raises(InputError, match="nothing is held out; give validation_share"):
        run_of(pendulum_file, best_by="held_out")

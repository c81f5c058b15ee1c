"""Going on: more steps in a run's folder, weights of another run or policy, several data sets mixed."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import chibit
from chibit.agents import AGENTS
from chibit.cli import main
from chibit.core.errors import DamagedFileError, InputError
from chibit.data.environment import evaluate_in
from chibit.data.mix import mix
from chibit.data.samplers.transitions import TransitionSampler
from chibit.data.samplers.windows import WindowSampler
from chibit.data.spec import ObservationPart

SMALL = {"batch_size": 4, "context_length": 3, "n_layer": 1, "n_embd": 16}
QUIET = ["--device", "cpu", "--quiet"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arrays(seed=0, *, size=3, num_actions=2, episodes=6, reward=1.0):
    generator, steps = np.random.default_rng(seed), 10 * episodes
    return {
        "observations": generator.normal(size=(steps, size)),
        "actions": generator.uniform(-1, 1, size=(steps, num_actions)),
        "rewards": reward * generator.normal(size=steps),
        "terminations": np.arange(1, steps + 1) % 10 == 0,
    }


def weights(result):
    return result.policy.agent.modules().state_dict()


def alike(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_more_steps_go_on_to_the_bit_with_the_schedules_of_the_first_ones():
    data = arrays()
    chibit.fit(data, "random", steps=40, out="run", **SMALL)
    Path("run/judgements.json").write_text("{}")
    longer = chibit.fit(data, "random", steps=60, out="run", **SMALL)
    # Warm-up is 5 % of 40 steps, in both; a run of 60 steps begun anew would have 3.
    whole = chibit.fit(
        data, "random", steps=60, out="whole", warmup_steps=2, auxiliary_decay_steps=2, **SMALL
    )
    assert longer.record["steps"] == 60 and alike(weights(longer), weights(whole))
    steps = [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert steps == [40, 60] and not Path("run/judgements.json").exists()
    config = json.loads(Path("run/config.json").read_text())["config"]
    assert (config["num_steps"], config["agent"]["warmup_steps"]) == (60, 2)
    (change,) = json.loads(Path("run/provenance.json").read_text())["continued"]
    assert (change["from"], change["to"]) == (40, 60)
    said = Path("run/train.log").read_text()
    assert "carried on from 40 to 60 steps; schedules stay those of a run of 40 steps (warmup_steps 2" in said
    again = chibit.fit(data, "random", steps=60, out="run", **SMALL)  # finished: nothing is done
    assert again.record == longer.record
    third = chibit.fit(data, "random", steps=64, out="run", **SMALL)
    assert third.record["steps"] == 64
    assert [one["to"] for one in json.loads(Path("run/provenance.json").read_text())["continued"]] == [60, 64]


def test_the_command_line_goes_on_and_refuses_fewer_steps_and_another_run(capsys):
    np.savez("log.npz", **arrays())
    run = ["train", "--agent", "bc", "--data", "log.npz", "--out", "run", *QUIET, "--no-judge"]
    assert main([*run, "--num-steps", "4"]) == 0
    assert main([*run, "--num-steps", "7"]) == 0
    assert json.loads(Path("run/result.json").read_text())["steps"] == 7
    capsys.readouterr()
    assert main([*run, "--num-steps", "5"]) == 2
    assert "run: is a run of 7 steps, got num_steps 5; give as many or more" in capsys.readouterr().err
    assert main([*run, "--num-steps", "9", "--learning-rate", "0.1"]) == 2
    assert "holds a run with another configuration" in capsys.readouterr().err
    assert json.loads(Path("run/result.json").read_text())["steps"] == 7


def test_a_run_whose_data_have_changed_or_that_may_not_go_on_stays_as_it_was():
    chibit.fit(arrays(), "bc", steps=2, out="run")
    before = {path.name: path.read_bytes() for path in Path("run").glob("*.json")}
    data = json.loads(before["config.json"])["config"]["data"]
    config = chibit.RunConfig(data=data, agent="bc", arm="bc", num_steps=3)
    with pytest.raises(DamagedFileError, match="the data set .* has changed since this run began"):
        chibit.train(config, "run", dataset=chibit.from_arrays(**arrays(1)), progress=False)
    with pytest.raises(InputError, match="another configuration"):
        chibit.train(config, "run", resume=False, progress=False)
    assert {path.name: path.read_bytes() for path in Path("run").glob("*.json")} == before


@pytest.mark.parametrize("hindrance", ["no data", "no device", "another study", "no tracker"])
def test_a_run_that_cannot_go_on_keeps_its_result(monkeypatch, capsys, hindrance):
    np.savez("log.npz", **arrays())
    run = ["train", "--agent", "bc", "--data", "log.npz", "--out", "run", "--quiet", "--no-judge"]
    assert main([*run, "--num-steps", "2"]) == 0
    Path("run/judgements.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in Path("run").glob("*.json")}
    more = {"no device": ["--device", "cuda:99"], "another study": ["--study", "other"]}.get(hindrance, [])
    if hindrance == "no data":
        Path("log.npz").rename("gone.npz")
    elif hindrance == "no tracker":
        monkeypatch.setitem(sys.modules, "wandb", None)
        more = ["--wandb", "project"]
    capsys.readouterr()
    assert main([*run, "--num-steps", "3", *more]) == 2
    assert capsys.readouterr().err.startswith("chibit: ")
    assert {path.name: path.read_bytes() for path in Path("run").glob("*.json")} == before
    assert main([*run, "--num-steps", "2"]) == 0


def test_a_finished_run_whose_data_are_refused_now_is_finished(capsys):
    steps = "".join(f"{i},{i % 3},{i % 2},0.5,{int(i % 5 == 4)}\n" for i in range(20))
    Path("log.csv").write_text("obs_0,obs_1,state,action,done\n" + steps)
    Path("log.toml").write_text('observations = ["obs_0", "obs_1"]\nrewards = "state"\n')
    run = ["train", "--agent", "bc", "--data", "log.csv", "--num-steps", "1", *QUIET]
    assert main([*run, "--out", "run", "--no-judge"]) == 0
    Path("log.toml").unlink()
    capsys.readouterr()
    assert main([*run, "--out", "run"]) == 0
    said = capsys.readouterr()
    assert "WARNING: run: is finished, but its data cannot be compared: " in said.err
    assert said.out.startswith("1 steps; ") and "not judged: " in said.out
    before = Path("run/result.json").read_bytes()
    assert main([*run, "--out", "new"]) == 2 and main([*run, "--out", "run", "--num-steps", "2"]) == 2
    assert Path("run/result.json").read_bytes() == before


@pytest.mark.parametrize("more", [0, 1])
def test_bounds_that_have_changed_beside_the_same_steps_are_told(capsys, more):
    np.savez("log.npz", **arrays())
    Path("log.toml").write_text("action_low = -2.0\naction_high = 2.0\n")
    run = ["train", "--agent", "bc", "--data", "log.npz", "--out", "run", *QUIET, "--no-judge"]
    assert main([*run, "--num-steps", "2"]) == 0
    assert main([*run, "--num-steps", "2"]) == 0
    assert "WARNING" not in capsys.readouterr().err
    Path("log.toml").write_text("action_low = -3.0\naction_high = 2.0\n")
    assert main([*run, "--num-steps", str(2 + more)]) == 0
    assert (
        "WARNING: run: keeps the action_low that it began with; log.npz has others" in capsys.readouterr().err
    )
    described = json.loads(Path("run/provenance.json").read_text())["dataset"]
    assert described["action_low"] == [-2.0, -2.0]


def test_weights_of_a_run_and_of_a_policy_are_started_from(capsys):
    first = chibit.fit(arrays(), "random", steps=5, out="first", **SMALL)
    first.policy.save_pretrained("policy")
    tiny = {"steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    for number, source in enumerate(("first", "policy")):
        second = chibit.fit(arrays(1), init_from=source, out=f"second{number}", **tiny)
        ours, theirs = weights(second), weights(first)
        assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)
        record = json.loads(Path(f"second{number}/provenance.json").read_text())["init_from"]
        assert record["source"] == source and record["anew"] == [] and len(record["hash"]) == 64
        assert second.policy.agent.config.gpt == first.policy.agent.config.gpt
        assert second.policy.agent.config.warmup_steps == 1  # of its own length


def test_a_source_may_be_named_with_underscores_and_from_home(folder, monkeypatch):
    chibit.fit(arrays(), "bc", steps=1, out="cloned", hidden_sizes=(8,))
    np.savez("log.npz", **arrays(1))
    run = ["train", "--data", "log.npz", "--num-steps", "1", "--no-judge", *QUIET]
    assert main([*run, "--init_from", "cloned", "--out", "next"]) == 0
    config = json.loads(Path("next/config.json").read_text())["config"]
    assert (config["agent_name"], config["agent"]["hidden_sizes"]) == ("bc", [8])
    Path("text.txt").write_text("the cat sat on the mat and looked at the moon . " * 400)
    words = {"language_corpus": "text.txt", "language_batch_size": 1, "language_block": 16}
    chibit.fit(
        arrays(), "chibit", steps=1, out="first", language_weight=0.2, batch_size=4, context_length=3, **words
    )
    monkeypatch.setenv("HOME", str(folder))
    sources = "first", "~/first"
    records = []
    for number, source in enumerate(sources):
        chibit.fit(arrays(), init_from=source, steps=1, out=f"second{number}")
        records.append(json.loads(Path(f"second{number}/provenance.json").read_text())["init_from"])
    assert [record.pop("source") for record in records] == [*sources]
    assert records[0] == records[1]


def begun(first, out, **given):
    """Schedules of runs of four steps that start from a run of twenty, and from its policy."""
    first = chibit.fit(arrays(), first, steps=20, out=out, **given)
    first.policy.save_pretrained(f"{out}-policy")
    for source in (out, f"{out}-policy"):
        chibit.fit(arrays(1), init_from=source, steps=4, out=f"from-{source}")
        yield json.loads(Path(f"from-{source}/config.json").read_text())["config"]["agent"]


def test_schedules_that_were_given_stay_and_others_follow_the_new_length():
    for settings in begun("random", "given", warmup_steps=3, max_timesteps=30, **SMALL):
        assert (settings["warmup_steps"], settings["max_timesteps"]) == (3, 30)
        assert settings["auxiliary_decay_steps"] == 1  # 5 % of four, at least one
    for settings in begun("random", "share", warmup_share=0.5, **SMALL):
        assert settings["warmup_steps"] == 2
    for settings in begun("bc", "cloned", warmup_steps=None, warmup_share=0.5, hidden_sizes=(8,)):
        assert settings["warmup_steps"] == 2
    for settings in begun("iql", "constant", actor_decay_steps=0, hidden_sizes=(8,)):
        assert settings["actor_decay_steps"] == 0
    for settings in begun("iql", "falling", hidden_sizes=(8,)):
        assert settings["actor_decay_steps"] == 4


def test_of_a_source_of_before_only_schedules_of_0_are_known_to_be_given():
    iql, dt, text = (AGENTS[name].config for name in ("iql", "dt", "text"))
    assert iql(actor_decay_steps=0).for_other_data().actor_decay_steps == 0
    assert iql(actor_decay_steps=9).for_other_data().actor_decay_steps is None
    left = dt(warmup_steps=7, warmup_share=0.5, max_timesteps=9).for_other_data()
    assert (left.warmup_steps, left.warmup_share, left.max_timesteps) == (None, 0.05, 0)
    assert text(max_timesteps=9).for_other_data().max_timesteps == 0


def test_units_are_those_of_the_new_data_whatever_they_were_where_it_starts_from():
    first = chibit.fit(
        arrays(), "random", steps=2, out="first", return_scale=7.0, action_units="raw", **SMALL
    )
    first.policy.save_pretrained("policy")
    new = arrays(1, reward=1e5)
    new["actions"] = 5e3 * (new["actions"] + 1)
    fresh = chibit.fit(new, "random", steps=1, out="fresh", **SMALL).policy.agent.config
    for source in ("first", "policy"):
        policy = chibit.fit(new, init_from=source, steps=1, out=f"from-{source}").policy
        config = policy.agent.config
        assert config.return_scale == fresh.return_scale > 1e4
        assert config.return_baseline == fresh.return_baseline and config.action_units == "range"
        policy.reset(60)
        acted = policy.act(new["observations"])
        assert (acted > new["actions"].min(0)).all() and (acted < new["actions"].max(0)).all()
        assert np.abs(acted - 5e3).mean() < 2e3  # in the middle, of which little is learned in a step
    raw = chibit.fit(
        new, "random", steps=1, init_from="first", out="raw", action_units="raw", **SMALL
    ).policy  # whose bounds are part of its weights
    assert raw.act(new["observations"][0]).max() > 100


def test_a_finished_run_without_checkpoints_is_not_begun_anew():
    chibit.fit(arrays(), "bc", steps=2, out="run", hidden_sizes=(8,), log_every=1)
    shutil.rmtree("run/checkpoints")
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    with pytest.raises(InputError, match="run: is finished, and has no checkpoint to go on from"):
        chibit.fit(arrays(), "bc", steps=4, out="run", hidden_sizes=(8,), log_every=1)
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


def test_what_a_decay_to_the_end_of_the_first_length_has_stopped_is_said():
    for steps, given, is_over in ((4, {}, True), (4, {"actor_decay_steps": 0}, False)):
        out = f"run{is_over}"
        for longer in (steps, steps + 2):
            chibit.fit(arrays(), "iql", steps=longer, hidden_sizes=(8,), out=out, **given)
        said = Path(out, "train.log").read_text()
        assert ("actor_decay_steps are over: what they slow down learns no more" in said) == is_over


def test_a_run_of_a_recipe_goes_on_with_the_warm_up_of_its_first_length():
    for steps in (20, 30):
        assert chibit.fit(arrays(), "dt", steps=steps, out="run", **SMALL).record["steps"] == steps
        assert json.loads(Path("run/config.json").read_text())["config"]["agent"]["warmup_steps"] == 2


def test_a_method_with_a_weight_that_is_one_number_may_be_started_from():
    first = chibit.fit(arrays(), "cql", steps=2, out="first", hidden_sizes=(8,), batch_size=4)
    second = chibit.fit(arrays(1), init_from="first", steps=1, out="second", actor_learning_rate=1e-12)
    ours, theirs = weights(second), weights(first)
    assert ours["temperature.log"].shape == () and theirs["temperature.log"] != 0
    assert torch.allclose(ours["temperature.log"], theirs["temperature.log"], atol=1e-9)


def test_critics_that_are_loaded_are_not_pretrained_again():
    cql = {"pretraining": "iid", "pretraining_steps": 2, "hidden_sizes": (8,), "batch_size": 4}
    slow = {"critic_learning_rate": 1e-12, "steps": 1}
    first = chibit.fit(arrays(), "cql", steps=3, out="first", **cql)
    second = chibit.fit(arrays(1), init_from="first", out="second", **slow)
    assert second.policy.agent.config.pretraining == "iid"
    for name, value in weights(first).items():
        if name.startswith("critics."):
            assert torch.allclose(weights(second)[name], value, atol=1e-6)


def test_an_actor_that_is_loaded_is_kept_while_the_behavior_is_fitted():
    widths = {"actor_hidden_sizes": (8,), "critic_hidden_sizes": (8,), "batch_size": 4}
    first = chibit.fit(arrays(), "brac_v", steps=4, behavior_steps=1, out="first", **widths)

    def actor(result):
        return {name: value for name, value in weights(result).items() if name.startswith("actor.")}

    second = {"init_from": "first", "behavior_steps": 9, "out": "second"}
    for steps in (2, 3):  # also after a resume
        kept = chibit.fit(arrays(1), steps=steps, **second)
        assert alike(actor(first), actor(kept))
        assert not alike(weights(first), weights(kept))
    # One whose last layer is drawn anew has learned nothing that could be kept.
    other = chibit.fit(
        arrays(1, num_actions=1),
        "brac_v",
        init_from="first",
        steps=2,
        behavior_steps=9,
        out="other",
        **widths,
    )
    behavior = other.policy.agent.behavior.state_dict()
    assert alike(other.policy.agent.actor.state_dict(), behavior)


def test_what_has_another_size_is_drawn_anew_and_said_so():
    first = chibit.fit(arrays(), "random", steps=5, out="first", **SMALL)
    other = chibit.fit(arrays(2, size=5, num_actions=1), "random", steps=1, init_from="first", out="other",
                       learning_rate=1e-12, weight_decay=0.0, **SMALL)  # fmt: skip
    ours, theirs = weights(other), weights(first)
    anew = json.loads(Path("other/provenance.json").read_text())["init_from"]["anew"]
    assert anew and all(ours[name].shape != theirs[name].shape for name in anew)
    same = [name for name in ours if name not in anew]
    assert any("blocks" in name for name in same)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in same)
    assert "weights: starts from" in Path("other/train.log").read_text()
    assert f"drawn anew, since sizes differ or it has none: {anew[0]}" in Path("other/train.log").read_text()


def test_a_longer_time_limit_keeps_the_timesteps_that_both_have():
    first = chibit.fit(arrays(), "random", steps=5, out="first", **SMALL)
    longer = arrays() | {"terminations": np.arange(1, 61) % 20 == 0}
    other = chibit.fit(
        longer, "random", steps=1, init_from="first", out="other", learning_rate=1e-12, **SMALL
    )
    name = next(name for name, value in weights(first).items() if value.shape == (10, 16))
    assert torch.allclose(weights(other)[name][:10], weights(first)[name], atol=1e-6)
    assert weights(other)[name].shape == (20, 16)


def test_the_command_line_takes_the_method_of_what_it_starts_from_and_refuses_another(capsys):
    np.savez("log.npz", **arrays())
    chibit.fit("log.npz", "td3_bc", steps=2, out="first", hidden_sizes=(8,))
    run = ["train", "--data", "log.npz", "--init-from", "first", "--num-steps", "2", *QUIET, "--no-judge"]
    assert main([*run, "--out", "second"]) == 0
    config = json.loads(Path("second/config.json").read_text())["config"]
    assert (config["agent_name"], config["agent"]["hidden_sizes"]) == ("td3_bc", [8])
    for flags, words in (
        (["--agent", "bc"], "first is of agent td3_bc, this run of bc; give one of the same method"),
        (["--init-from", "nowhere/at/all"], "nowhere/at/all: no such folder"),
    ):
        capsys.readouterr()
        assert main([*[w for w in run if "--init-from" not in flags or w not in ("--init-from", "first")],
                     *flags, "--out", "third"]) == 2  # fmt: skip
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and not Path("third").exists()


def test_a_resumed_run_does_not_start_again_from_there():
    chibit.fit(arrays(), "bc", steps=2, out="first")
    run = {"init_from": "first", "steps": 3, "out": "second"}
    before = weights(chibit.fit(arrays(1), "bc", **run))
    shutil.rmtree("first/checkpoints")
    again = chibit.fit(arrays(1), "bc", **run)
    assert alike(before, weights(again))


def sampled(dataset, kind, number=200):
    common = {"batch_size": 50, "generator": np.random.default_rng(0)}
    more = {"context_length": 2} if kind is WindowSampler else {}
    sampler = kind(dataset, **common, **more)
    return np.concatenate([sampler.sample().rows.numpy() for _ in range(number)])


@pytest.mark.parametrize("kind", [WindowSampler, TransitionSampler])
def test_steps_of_mixed_data_are_drawn_as_their_weights_say(kind):
    parts = [chibit.from_arrays(**arrays(seed, episodes=n)) for seed, n in ((0, 2), (1, 12))]
    rows = sampled(mix(parts, (3, 1)), kind)
    assert np.mean(rows < 20) == pytest.approx(0.75, abs=0.02)
    inside = np.bincount(rows[rows < 20], minlength=20)
    assert inside.min() > 0.7 * inside.max()  # all steps of a part as often
    assert np.mean(sampled(mix(parts), kind) < 20) == pytest.approx(20 / 140, abs=0.02)
    few, held_out = mix(parts, (3, 1)).held_out_split(0.5, seed=0)
    share = int((few.mixture.sources == 0).sum()) * 10
    assert np.mean(sampled(few, kind) < share) == pytest.approx(0.75, abs=0.02)
    assert held_out.mixture is not None


def test_transitions_without_what_came_after_are_left_out_of_mixtures_too():
    cut = arrays(episodes=3)
    cut |= {"truncations": cut["terminations"], "terminations": np.zeros(30, bool)}
    mixed = mix([chibit.from_arrays(**cut), chibit.from_arrays(**arrays(1))], (1, 1))
    rows = sampled(mixed, TransitionSampler)
    assert not set(rows) & {9, 19, 29} and np.mean(rows < 30) == pytest.approx(0.5, abs=0.02)
    assert set(range(9)) <= set(rows) and 89 in rows


def test_statistics_and_bounds_are_those_of_all():
    first, second = arrays(0), arrays(1)
    second |= {"observations": second["observations"] + 7, "actions": 3 * second["actions"]}
    mixed = mix([chibit.from_arrays(**first), chibit.from_arrays(**second)])
    both = np.concatenate([first["observations"], second["observations"]])
    np.testing.assert_allclose(mixed.spec.state_mean, both.mean(0), rtol=1e-5)
    assert mixed.spec.action_high[0] > 2 and (mixed.num_steps, mixed.num_episodes) == (120, 12)
    np.testing.assert_allclose(mixed.observations, both, rtol=1e-5)


def test_what_is_fine_alone_is_fine_mixed():
    for name, seed in (("pr\u00fcfung", 0), ("_old", 1), ("l" * 120, 2), ("m" * 120, 3)):
        np.savez(f"{name}.npz", **arrays(seed), action_low=[-0.5], action_high=[0.25 + seed])
    names = sorted(path.name for path in Path.cwd().glob("*.npz"))
    parts = [chibit.load_dataset(name) for name in names]
    assert any(part.actions.max() > part.spec.action_high[0] for part in parts)  # which a note says
    mixed = mix(parts)
    assert (mixed.spec.action_low, mixed.spec.action_high) == ((-0.5,) * 2, (3.25,) * 2)
    assert mixed.spec.name.startswith("old+lllll") and "+pr-fung" not in mixed.spec.name
    assert mix(parts[::-1]).spec.name.startswith("pr-fung+mmm")
    assert any("beyond their bounds" in note for note in mixed.notes)


def test_what_data_declare_is_not_lost_where_they_are_mixed():
    """Choices that no step makes, a time limit that no episode reaches, what observations were."""
    own = arrays(0) | {"actions": np.arange(60) % 3}
    first, second = (chibit.from_arrays(**own | {"rewards": np.full(60, float(i))}) for i in range(2))
    halves = tuple(ObservationPart(path=(name,), shape=(size,)) for name, size in (("a", 1), ("b", 2)))
    declared = {"num_actions": 5, "max_episode_steps": 50, "observation_parts": halves}
    first, second = (
        dataclasses.replace(each, spec=dataclasses.replace(each.spec, **declared)) for each in (first, second)
    )
    spec = mix([first, second]).spec
    assert {name: getattr(spec, name) for name in declared} == declared
    longer = dataclasses.replace(
        second, spec=dataclasses.replace(second.spec, max_episode_steps=70, observation_parts=())
    )
    spec = mix([first, longer]).spec
    assert (spec.max_episode_steps, spec.observation_parts) == (70, ())


def test_mixed_data_of_other_physics_say_which_they_are_evaluated_with():
    shared = {**arrays(num_actions=1), "env_id": "Pendulum-v1"}
    first, second = (chibit.from_arrays(**shared, name=name) for name in ("old", "new"))
    first = dataclasses.replace(first, spec=dataclasses.replace(first.spec, d4rl_physics=True))
    mixed = mix([first, second])
    assert mixed.spec.d4rl_physics
    assert "of different contact margins in MuJoCo: evaluated with those of old" in mixed.notes


def test_mixed_data_of_other_environments_have_the_score_of_the_one_they_are_evaluated_in():
    one, other, none = (arrays(seed, num_actions=1) for seed in range(3))
    swing = chibit.from_arrays(**one, env_id="Pendulum-v1", score_reference=(-1500.0, -150.0), name="swing")
    same = chibit.from_arrays(**other, name="same", score_reference=(0.0, 7.0))
    bare = chibit.from_arrays(**none, name="bare")
    assert mix([swing, swing]).spec.score_reference == (-1500.0, -150.0)
    assert evaluate_in(mix([swing, bare]), "Pendulum-v1").spec.score_reference is None
    assert evaluate_in(mix([swing, same]), "Pendulum-v1").spec.score_reference == (0.0, 7.0)
    old = dataclasses.replace(swing, spec=dataclasses.replace(swing.spec, d4rl_physics=True))
    assert "of different contact margins in MuJoCo: evaluated with those of swing" in mix([old, bare]).notes


def test_mixed_data_are_trained_on_recorded_and_resumed_exactly(capsys):
    for name, seed in (("a", 0), ("b", 1)):
        np.savez(f"{name}.npz", **arrays(seed))
    run = [
        "train",
        "--agent",
        "bc",
        "--data",
        "a.npz",
        "b.npz",
        "--data-weights",
        "3",
        "1",
        "--no-judge",
        *QUIET,
    ]
    assert main([*run, "--num-steps", "8", "--out", "whole"]) == 0
    record = json.loads(Path("whole/config.json").read_text())["config"]
    assert (record["data"], record["more_data"], record["data_weights"]) == ("a.npz", ["b.npz"], [3.0, 1.0])
    parts = json.loads(Path("whole/provenance.json").read_text())["mixed"]
    assert [(part["name"], part["steps"]) for part in parts] == [("a", 60), ("b", 60)]
    assert main([*run, "--num-steps", "5", "--out", "part"]) == 0
    assert main([*run, "--num-steps", "8", "--out", "part"]) == 0
    policies = [chibit.Policy.from_pretrained(name) for name in ("whole", "part")]
    assert alike(*(policy.agent.modules().state_dict() for policy in policies))
    capsys.readouterr()
    other = [word if word != "3" else "2" for word in run]
    assert main([*other, "--num-steps", "8", "--out", "whole"]) == 2  # other weights are another run
    assert "another configuration" in capsys.readouterr().err


def test_in_python_a_list_is_mixed():
    first, second = arrays(0), chibit.from_arrays(**arrays(1))
    result = chibit.fit([first, second], "bc", steps=2, data_weights=(1, 2), out="run")
    assert json.loads(Path("run/provenance.json").read_text())["data_episodes"] == 12
    config = chibit.fit([first, second], "bc", steps=2, data_weights=(1, 2), out="run")
    assert result.record == config.record
    assert main(["train", "--config", "run/config.json", "--out", "again", "--no-judge", *QUIET]) == 0
    states = [chibit.Policy.from_pretrained(name).agent.modules().state_dict() for name in ("run", "again")]
    assert alike(*states)


@pytest.mark.parametrize(
    ("other", "more", "words"),
    [
        (
            {"size": 4},
            {},
            r"has observation_shape \(4,\), act_dim 2, .* has observation_shape \(3,\), act_dim 2",
        ),
        ({"num_actions": 1}, {}, "act_dim 1"),
        ({}, {"data_weights": (1,)}, "data_weights: got 1, expected one for each of 2 data sets"),
        ({}, {"data_weights": (1, 0)}, r"data_weights\[1\]: got 0.* expected a positive number"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_line(other, more, words):
    with pytest.raises(InputError, match=words) as refusal:
        chibit.fit([arrays(0), arrays(1, **other)], "bc", steps=1, out="run", **more)
    assert "\n" not in str(refusal.value) and not Path("run").exists()
    with pytest.raises(InputError, match="data_weights: got 2, expected one for each of 1 data sets"):
        chibit.RunConfig(data="x", agent="bc", data_weights=(1, 2))


def test_configurations_of_before_keep_their_names():
    from chibit.training.run_config import to_record

    config = chibit.RunConfig(data="x", agent="bc")
    assert not {"more_data", "data_weights", "init_from"} & to_record(config).keys()
    assert "more_data" in to_record(dataclasses.replace(config, more_data=("y",)))

"""What is said at the start of a run: what was chosen and why, its time, and whether data are few."""

import dataclasses

import numpy as np
import pytest
import torch

import baseline_toys
from chibit.agents import AGENTS, make_agent
from chibit.cli import main
from chibit.core.errors import InputError
from chibit.core.runtime import Runtime
from chibit.data.choices import choices, table_lines
from chibit.data.load import from_arrays
from chibit.recipes import RECIPES
from chibit.study_runs import study_configs
from chibit.training.outlook import few_data, outlook, short_context, warnings
from chibit.training.run_config import RunConfig, to_record
from chibit.training.run_data import advise

NUM = 400


@pytest.fixture
def log(tmp_path):
    """A process log in units of 1e4: one observation constant, one with an offset, bounds of all kinds."""
    rng = np.random.default_rng(0)
    states = np.stack(
        [5e4 + 2e3 * rng.standard_normal(NUM), np.full(NUM, 0.3), 52 + 3e-5 * rng.random(NUM)], 1
    )
    actions = np.stack([2e4 * rng.random(NUM), 0.01 * rng.random(NUM), rng.random(NUM), rng.random(NUM)], 1)
    ends = np.arange(NUM) % 20 == 19
    return from_arrays(
        states, actions, -1e4 * rng.random(NUM), ends, cache=tmp_path,
        action_low=[-np.inf, 0, 0, 0], action_high=[np.inf, np.inf, 1, 1],
    )  # fmt: skip


def test_choices_are_said_with_their_reasons(log):
    said = {choice.what: choice.text for choice in choices(log)}
    assert "90 %" in said["target returns"] and "taken off first" in said["return scale"]
    assert "what the data reach" in said["action 0"]
    assert "one declared, one what the data reach" in said["action 1"]
    assert said["action 2 to 3"] == "0 to 1 (declared)"
    assert said["constant ones"].startswith("1 (") and said["with an offset"].startswith("2 (")
    assert not {"target returns", "return scale"} & {c.what for c in choices(log, has_targets=False)}


def test_bounds_around_an_action_that_never_changes_are_not_called_declared(tmp_path):
    ends, ones = np.arange(NUM) % 20 == 19, np.ones(NUM)
    actions = np.stack([0.5 * ones, 0.5 * ones, 0 * ones, np.arange(NUM) / NUM], 1)
    low = [-np.inf, 0, -np.inf, -1]
    log = from_arrays(ones, actions, ones, ends, cache=tmp_path, action_low=low)
    said = {choice.what: choice.text for choice in choices(log)}
    assert said["action 0"] == "0.499 to 0.501 (around the one value of the data)"
    assert said["action 1"] == "0 to 0.5 (one declared, one what the data reach)"
    assert said["action 2"] == "-0.001 to 0.001 (around the one value of the data)"
    assert "one declared, one what the data reach" in said["action 3"]


def test_a_part_keeps_the_reasons_of_the_whole(tmp_path):
    rng, ends = np.random.default_rng(0), np.arange(NUM) % 20 == 19
    log = from_arrays(rng.normal(size=NUM), rng.random(NUM), rng.random(NUM), ends, cache=tmp_path)
    parts = [log.held_out_fold(number, 10)[0] for number in range(10)]
    few = log.random_fraction(0.1, 0).random_fraction(0.5, 0)
    for part in (*parts, few):
        said = {choice.what: choice.text for choice in choices(part)}
        assert said["action"].endswith("(what the data reach)"), said
        whose = "all the data" if part is few else "the data"
        assert f"the best return of {whose}, and that at 90 % of their episodes" in said["target returns"]


@pytest.mark.parametrize("agent", ["dt", "bc", "brac_v"])
def test_the_table_of_a_run_fits_into_80_columns(agent, log):
    config = RunConfig(data="x", agent=AGENTS[agent].config(), num_steps=1_000)
    lines = table_lines(outlook(config, log))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "expected time" in text and "each logged step is seen" in text
    schedule = {"dt": "warmup steps", "brac_v": "behavior steps"}
    assert agent not in schedule or schedule[agent] in text


def test_few_data_are_said_with_steps_that_suit_them(log):
    config = RunConfig(data="x", agent=AGENTS["dt"].config())
    [said] = few_data(config, log)
    assert "320,000 times" in said and "--num-steps 312 " in said and "--validation-share" in said
    assert not list(few_data(dataclasses.replace(config, num_steps=312), log))
    [said] = few_data(dataclasses.replace(config, validation_share=0.2), log)
    assert "--validation-share" not in said


@pytest.mark.parametrize(
    ("episodes", "shares"), [(1, (None, None)), (2, (0.5, 0.5)), (4, (0.2, 0.5)), (5, (0.2, 0.1))]
)
def test_a_share_that_is_proposed_can_be_held_out(episodes, shares, tmp_path):
    seen, ends = np.random.default_rng(0).normal(size=4 * episodes), np.arange(4 * episodes) % 4 == 3
    log = from_arrays(seen, seen, seen, ends, cache=tmp_path)
    config = RunConfig(data="x", agent=AGENTS["bc"].config())
    for share, said in zip(shares, (*few_data(config, log), *advise(config, log, None)), strict=True):
        if share is None:
            assert "--validation-share" not in said
            with pytest.raises(InputError, match="1 episode holds out 0, .* cannot be divided: leave it out"):
                log.held_out_split(0.2, 0)
        else:
            assert f"--validation-share {share} " in said
            assert all(part.num_episodes for part in log.held_out_split(share, 0))


@pytest.mark.parametrize(
    ("env_id", "said"),
    [
        ("chibit/TMaze15-v0", {15: "25 %", 16: None}),
        ("chibit/KeyToDoor20-v0", {9: "100 %", 14: "25 %", 15: None}),
        ("Hopper-v5", {1: None}),
        (None, {1: None}),
    ],
)
def test_a_context_shorter_than_the_delay_is_said(tmp_path, env_id, said):
    """Episodes of 12, 12, 16 and 12 steps; the key is seen in two steps, the cue of the maze in one."""
    ends = np.isin(np.arange(52), [11, 23, 39, 51])
    data = from_arrays(np.zeros((52, 3)), np.arange(52) % 4, ends.astype(float), ends, cache=tmp_path)
    data = dataclasses.replace(data, spec=dataclasses.replace(data.spec, env_id=env_id))
    for context, share in said.items():
        config = RunConfig(data="x", agent=AGENTS["dt"].config(context_length=context))
        notes = list(short_context(config, data))
        assert bool(notes) == (share is not None)
        for note in notes:
            assert f"context length {context}: shorter than the delay in {share} of the" in note
            assert f"--context-length {15 + ('TMaze' in env_id)} shows it" in note
    assert not list(short_context(RunConfig(data="x", agent=AGENTS["rem"].config()), data))


def test_targets_far_above_the_best_return_are_called_extrapolation(log):
    returns = log.episode_returns
    best, worst = float(returns.max()), float(returns.min())
    near = RunConfig(data="x", agent="dt", target_returns=(best, best + 0.9 * (best - worst)))
    assert not list(warnings(dataclasses.replace(near, target_returns=None, num_steps=1), log))
    assert not list(warnings(dataclasses.replace(near, num_steps=1), log))
    (said,) = warnings(dataclasses.replace(near, num_steps=1, target_returns=(best, 0.0)), log)
    assert said.startswith("target returns 0: extrapolation, far above the best return of the data (-")


def test_a_run_says_it_in_its_log_and_what_it_measured(log, tmp_path, monkeypatch):
    monkeypatch.setenv("CHIBIT_HOME", str(tmp_path))
    flags = [
        "--num-steps",
        "6",
        "--log-every",
        "2",
        "--hidden-sizes",
        "8",
        "--batch-size",
        "8",
        "--quiet",
        "--no-judge",
    ]
    out = ["--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(["train", "--agent", "bc", "--data", str(log.folder), *flags, *out]) == 0
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    assert "chosen for this run:" in lines and any(line.startswith("  action 0 ") for line in lines)
    [measured] = [line for line in lines if line.startswith("measured over")]
    assert "measured over 2 steps" in measured and "for the 4 left" in measured


SCHEDULES = [
    ("dt", "warmup_steps", 60, 3),
    ("dt", "auxiliary_decay_steps", 3_000, 150),
    ("brac_v", "behavior_steps", 1_000, 100),
    ("brac_v", "behavior_steps", 1_000_000, 10_000),
    ("awr", "refresh_every", 60, 6),
    ("awr", "refresh_every", 100_000, 1_000),
    ("qr_dqn", "target_every", 1_000, 100),
    ("rem", "target_every", 100_000, 2_000),
    ("discrete_cql", "target_every", 5, 1),
    ("iql", "actor_decay_steps", 500, 500),
    ("iql", "actor_decay_steps", 1_000_000, 1_000_000),
]


@pytest.mark.parametrize(("agent", "field", "num_steps", "expected"), SCHEDULES)
def test_schedules_are_shares_of_the_run_where_none_is_given(agent, field, num_steps, expected):
    kind = AGENTS[agent].config
    config = RunConfig(data="x", agent=kind(), num_steps=num_steps)
    assert to_record(config)["agent"][field] == expected
    given = dataclasses.replace(config, agent=kind(**{field: 77}))
    assert to_record(given)["agent"][field] == 77


@pytest.mark.parametrize(
    ("recipe", "share"),
    [("dt", 0.1), ("chibit_released", 0.1), ("chibit_lora", 0.025), ("bc_stacked", 0.1), ("random", 0.05)],
)
def test_the_warm_up_of_a_recipe_is_a_share_of_the_run_too(recipe, share):
    for num_steps in (100_000, 2_000):
        config = dataclasses.replace(RECIPES[recipe].run(data="x"), num_steps=num_steps)
        record = to_record(config)["agent"]
        assert record["warmup_steps"] == share * num_steps and "warmup_share" not in record
        given = dataclasses.replace(config.agent, warmup_steps=7)
        assert to_record(dataclasses.replace(config, agent=given))["agent"]["warmup_steps"] == 7


def test_the_authors_decay_of_iql_stays_in_the_studies():
    assert RECIPES["iql_tuned"].run(data="hopper-medium").agent.actor_decay_steps == 1_000_000
    for study in ("baselines", "fair_baselines"):
        [config] = study_configs(study, arms=("iql",), seeds=(0,), data=("hopper-medium",))
        assert to_record(config)["agent"]["actor_decay_steps"] == 1_000_000


@pytest.mark.parametrize(
    ("agent", "settings", "what", "text"),
    [
        ("td3_bc", {}, "rewards", "less -4,875, times 0.000353"),
        ("td3_bc", {"reward_scale": 2.0}, "rewards", "times 2.00 (as given)"),
        ("dt", {"return_scale": 50.0}, "return scale", "50 (as given)"),
        ("dt", {}, "return scale", "root mean square of the returns-to-go around"),
    ],
)
def test_what_is_done_with_rewards_and_returns_is_said(agent, settings, what, text, log):
    config = RunConfig(data="x", agent=AGENTS[agent].config(**settings), num_steps=10)
    [said] = [choice.text for choice in outlook(config, log) if choice.what == what]
    assert text in said


def test_following_the_advice_on_few_data_ends_it(tmp_path):
    for length in (5, 7, 20, 333):
        ends = np.arange(2 * length) % length == length - 1
        states = np.random.default_rng(0).standard_normal((2 * length, 2))
        few = from_arrays(states, states[:, :1], states[:, 0], ends, cache=tmp_path)
        config = RunConfig(data="x", agent=AGENTS["dt"].config(batch_size=7))
        [said] = few_data(config, few)
        steps = int(said.partition("--num-steps ")[2].split()[0])
        assert not list(few_data(dataclasses.replace(config, num_steps=steps), few))


@pytest.mark.parametrize("agent", ["brac_v", "awr"])
def test_a_short_run_trains_what_acts(agent):
    """The phase before it took 10,000 or 500 updates, whatever the run's length."""
    dataset, small = baseline_toys.identity_data(False), dict(baseline_toys.SMALL[agent])
    small = {k: v for k, v in small.items() if k not in ("behavior_steps", "refresh_every")}
    torch.manual_seed(0)
    agent = make_agent(AGENTS[agent].config(**small).for_steps(40), dataset.spec, Runtime())
    sampler = agent.sampler(agent.prepare(dataset), np.random.default_rng(0))
    named = set()
    for _ in range(40):
        named |= set(agent.update(sampler.sample()))
    assert "train/actor_loss" in named

"""One account of an evaluation: what the loop, the commands, result.json and the report say agrees."""

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from chibit.commands.evaluate import _evaluation_table
from chibit.commands.train import result_table
from chibit.data.dataset import DatasetSpec
from chibit.evaluation.rollout import Evaluation
from chibit.evaluation.summary import summarize, summarize_record
from chibit.policy.card import model_card, policy_scores
from chibit.reporting.read.run import read_run
from chibit.sweep.progress import _note
from chibit.training.loop import RunProgress
from chibit.training.offline import evaluation_line, evaluation_record, evaluation_score
from chibit.training.result import target_scores

HOPPER = (-20.272305, 3234.3)
SPEC = DatasetSpec(
    name="hopper-medium-v2", state_dim=2, act_dim=1, num_actions=None, env_id="Hopper-v5", d4rl_physics=False,
    max_episode_steps=1000, score_reference=HOPPER, state_mean=(0.0,) * 2, state_std=(1.0,) * 2,
    action_low=(-1.0,), action_high=(1.0,), default_target_returns=(3600.0,),
)  # fmt: skip


def evaluation(returns, failed=(), reference=HOPPER, target=3600.0):
    found = summarize(returns, failed_episodes=failed, score_reference=reference)
    return Evaluation(
        target_return=target,
        episode_returns=tuple(returns),
        episode_lengths=tuple(range(1000, 1000 - len(returns), -1)),
        env_seeds=tuple(range(len(returns))),
        normalized_score=found.normalized_score,
        failed_episodes=tuple(failed),
        seconds=1.0,
    )


ONE_FAILED = evaluation((3000.0, 3000.5, 10.0), failed=(2,))


def shown(thing):
    console = Console(width=160, file=io.StringIO())
    console.print(thing)
    return console.file.getvalue()


def test_a_score_is_rounded_and_is_of_episodes_that_count_alone():
    found = summarize([1234.0], score=138.5432, target_return=3600.0)
    assert str(found) == "target 3,600: return 1,234 (1 episode), score 138.5"
    assert summarize([1234.0], failed_episodes=[0], score=38.5).normalized_score is None


def test_failed_episodes_are_in_no_figure():
    found = ONE_FAILED.summary
    assert found.returns == (3000.0, 3000.5)
    assert found.mean_return == 3000.25
    assert found.std_return == pytest.approx(0.5 / 2**0.5)
    assert found.normalized_score == pytest.approx(100 * (3000.25 + 20.272305) / 3254.572305)
    assert found.mean_length == 999.5
    assert found.sample == "2 of 3 episodes, 1 failed"
    assert evaluation_score(ONE_FAILED) == found.normalized_score


def test_the_line_of_progress_says_what_it_counts(capsys):
    progress = RunProgress(10, "run", enabled=True)
    with progress.bar:
        progress.start(5)
        progress.say(evaluation_line([ONE_FAILED], 5))
    line = next(line for line in capsys.readouterr().err.splitlines() if "target" in line)
    assert line.strip() == "step 5: target 3,600: return 3,000 ± 0 (2 of 3 episodes, 1 failed), score 92.8"


def test_the_line_of_a_study_says_what_it_counts(tmp_path):
    for returns, failed, said in (
        ((3000.0, 10.0), (1,), "score 92.8 (1 of 2 episodes, 1 failed)"),
        ((5.0,), (0,), "no"),
    ):
        record = evaluation_record(evaluation(returns, failed), 10, 1.0)
        (tmp_path / "evaluations.jsonl").write_text(json.dumps(record) + "\n")
        assert f"  {said}" in _note(tmp_path, {"train/loss": 0.5})


def test_evaluate_shows_the_same_figures():
    spec = SimpleNamespace(env_id="Hopper-v5", score_reference=HOPPER)
    text = shown(_evaluation_table([ONE_FAILED, evaluation((0.027,), reference=None)], spec, 5000))
    assert "2 of 3 episodes, 1 failed" in text
    assert "3,000" in text
    assert "2,003" not in text and "2003" not in text and " 10 " not in text
    one = [cell.strip() for cell in text.splitlines()[-3].split("│")]
    assert one[2:6] == ["1", "0.0270", "", "0.0270"], "one episode has no spread"


def test_result_and_report_leave_failed_episodes_and_evaluations_out(tmp_path, runs):
    run = runs.write_run(tmp_path, "dt", "hopper-medium-v2", 0, targets=(3600.0,), num_evaluations=3)
    played = [
        ONE_FAILED,
        evaluation((5.0, 6.0), failed=(0, 1)),
        evaluation((3100.0, 2900.0, 1.0), failed=(2,)),
    ]
    records = [evaluation_record(entry, 5000 * (i + 1), 1.0) for i, entry in enumerate(played)]
    row = target_scores(3600.0, records)
    assert row["num_evaluations"] == 2
    assert row["last4"] == pytest.approx((played[0].normalized_score + played[2].normalized_score) / 2)
    assert (row["mean_return_last"], row["num_episodes_last"]) == (3000.0, 2)
    (run / "evaluations.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    result = json.loads((run / "result.json").read_text()) | {"scores": [row]}
    (run / "result.json").write_text(json.dumps(result))
    curve = read_run(run).curves[0]
    assert curve.rules.last4 == row["last4"]
    assert curve.mean_returns.tolist() == [3000.25, 3000.0]
    assert curve.num_failed == 4
    assert curve.final_returns.tolist() == [3000.0, 3000.5, 3100.0, 2900.0]
    text = shown(result_table(result))
    assert "last 2" in text and "last 4" not in text


def test_a_target_at_which_everything_failed_has_no_score():
    record = evaluation_record(evaluation((5.0, 6.0), failed=(0, 1)), 10, 1.0)
    row = target_scores(3600.0, [record])
    assert row["num_evaluations"] == 0
    assert row["last"] is row["best"] is row["mean_return_last"] is None
    result = {"score_unit": "normalized", "steps": 10, "scores": [row]}
    result |= {"behaviour_mean_return": 0.027, "behaviour_score": None}
    text = shown(result_table(result))
    assert "every episode failed" in text
    assert "0.0270" in text
    assert summarize_record(record).sample == "none of 2 episodes, 2 failed"


@pytest.mark.parametrize(
    ("returns", "failed", "spread"), [((159.02, 7.0), (1,), None), ((1.0, 3.0), (), 2**0.5)]
)
def test_the_model_card_gives_no_spread_of_one_episode(returns, failed, spread):
    scores = policy_scores([evaluation(returns, failed).summary], SimpleNamespace(env_id="Hopper-v5"))
    assert scores[0].std_return == (None if spread is None else pytest.approx(spread))
    card = model_card("dt", SPEC, 3600.0, scores)
    if spread is None:
        assert "+/-" not in card
        assert "| 3,600 | 1 | 159 | — |" in card
    else:
        assert "2.00 +/- 1.41" in card


def test_an_account_says_what_it_is_of_and_no_more():
    assert str(summarize((4.0,))) == "return 4.00 (1 episode)"
    assert str(summarize((1.0, 1.0), target_return=7.0)) == "target 7: return 1.00 ± 0.00 (2 episodes)"
    assert str(summarize((5.0, 15.0), score_reference=(0.0, 40.0))).endswith("(2 episodes), score 25.0")
    failed = summarize((5.0, 6.0), failed_episodes=(0, 1), target_return=-2.5, score_reference=(0.0, 1.0))
    assert str(failed) == "target -2.5: no return (none of 2 episodes, 2 failed)"
    assert (failed.score, failed.mean_length, failed.std_return) == (None, None, None)


def test_lines_of_the_log_and_of_earlier_versions_are_summarized():
    record = {
        "episode_returns": [1.0, 2.0, 9.0], "failed_episodes": [2], "episode_lengths": [10, 30, 7],
        "target_return": 5.0, "normalized_score": 12.5,
    }  # fmt: skip
    found = summarize_record(record)
    assert (found.returns, found.num_failed, found.mean_length) == ((1.0, 2.0), 1, 20.0)
    assert (found.target_return, found.normalized_score, found.score) == (5.0, 12.5, 12.5)
    bare = summarize_record(
        {key: record[key] for key in ("episode_returns", "target_return")} | {"normalized_score": None}
    )
    assert (bare.num_episodes, bare.num_failed, bare.mean_length) == (3, 0, None)
    assert (bare.normalized_score, bare.score) == (None, 4.0)


def test_the_share_of_successes_leaves_out_what_failed():
    found = summarize([1.0, 0.0, 0.0], failed_episodes=[1], successes=[True, True, False])
    assert found.success_rate == 0.5
    assert str(found) == "return 0.500 ± 0.707 (2 of 3 episodes, 1 failed), success 50 %"
    assert summarize([1.0]).success_rate is None and "success" not in str(summarize([1.0]))
    assert summarize([1.0], failed_episodes=[0], successes=[True]).success_rate is None
    assert "success 33 %" in str(summarize([0.0] * 3, successes=[True, False, False]))


def test_lines_of_evaluations_keep_successes_and_earlier_ones_have_none():
    record = {"episode_returns": [1.0, 0.0], "target_return": None, "normalized_score": None}
    assert summarize_record(record | {"successes": [True, False]}).success_rate == 0.5
    assert summarize_record(record).success_rate is None

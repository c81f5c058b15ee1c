"""The summary that closes a run, against numbers computed by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from chibit.training.result import summarize, target_scores


def record(step, returns, *, target=None, score=None, failed=()):
    return {
        "step": step,
        "seconds": step / 10,
        "target_return": target,
        "normalized_score": score,
        "episode_returns": returns,
        "episode_lengths": [5] * len(returns),
        "env_seeds": list(range(len(returns))),
        "failed_episodes": list(failed),
        "evaluation_seconds": 1.0,
    }


def test_scores_of_a_curve():
    records = [
        record(10, [1.0, 3.0], score=20.0),
        record(20, [9.0, 7.0], score=80.0),
        record(30, [8.0, 8.0], score=79.0),
        record(40, [5.0, 7.0, 100.0], score=60.0, failed=[2]),
        record(50, [6.0, 8.0], score=70.0),
    ]
    assert target_scores(-3.0, records) == {
        "target_return": -3.0,
        "num_evaluations": 5,
        "last": 70.0,
        "last4": pytest.approx((80 + 79 + 60 + 70) / 4),
        "best": 80.0,
        "best_step": 20,
        "mean_return_last": 7.0,
        "num_episodes_last": 2,
        "steps_to_converge": 20,
        "seconds_to_converge": 2.0,
    }


def test_evaluations_that_failed_are_left_out_wherever_they_are():
    records = [
        record(10, [9.0], failed=[0]),
        record(20, [2.0, 4.0]),
        record(30, [5.0, 100.0, 6.0], failed=[1]),
        record(40, [1.0, 2.0], failed=[0, 1]),
    ]
    assert target_scores(None, records) == {
        "target_return": None,
        "num_evaluations": 2,
        "last": 5.5,
        "last4": 4.25,
        "best": 5.5,
        "best_step": 30,
        "mean_return_last": 5.5,
        "num_episodes_last": 2,
        "steps_to_converge": None,  # returns of 5 would all be within 2 points of the best
        "seconds_to_converge": None,
    }


def test_without_an_evaluation_that_counts_there_are_no_scores():
    for records in ([], [record(10, [9.0], failed=[0])]):
        assert target_scores(7.0, records) == {
            "target_return": 7.0,
            "num_evaluations": 0,
            "last": None,
            "last4": None,
            "best": None,
            "best_step": None,
            "mean_return_last": None,
            "num_episodes_last": None,
            "steps_to_converge": None,
            "seconds_to_converge": None,
        }


@pytest.mark.parametrize(
    ("reference", "unit", "score"), [(None, "return", None), ((-2.0, 6.0), "normalized", 50.0)]
)
def test_the_result_of_a_run(reference, unit, score):
    logs = {
        "evaluations.jsonl": [
            record(step, [value, value], target=target)
            for step in (10, 20)
            for target, value in ((5.0, float(step)), (-5.0, 1.0))
        ]
    }
    run = SimpleNamespace(read_log=logs.__getitem__, provenance=lambda: {"parameters": {"total": 9}})
    spec = SimpleNamespace(score_reference=reference)
    dataset = SimpleNamespace(episode_returns=np.array([1.0, 3.0], np.float32), spec=spec)
    result = summarize(run, 20, 1.23456, 7.65432, dataset)
    scores = result.pop("scores")
    assert result == {
        "status": "finished",
        "steps": 20,
        "train_seconds": 1.235,
        "evaluation_seconds": 7.654,
        "score_unit": unit,
        "behaviour_mean_return": 2.0,
        "behaviour_score": score,
        "parameters": {"total": 9},
    }
    assert type(result["behaviour_mean_return"]) is float
    assert [(row["target_return"], row["last"], row["num_evaluations"]) for row in scores] == [
        (5.0, 20.0, 2),
        (-5.0, 1.0, 2),
    ]

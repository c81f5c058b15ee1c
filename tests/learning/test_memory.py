"""Memory tasks: what is in the context is used, what is not cannot be."""

import json

import pytest

from chibit.agents.dt.config import DecisionTransformerConfig
from chibit.data.collect.scripted import collect_scripted
from chibit.training.offline import train
from chibit.training.run_config import RunConfig


@pytest.mark.slow
@pytest.mark.parametrize(("context_length", "low", "high"), [(20, 95.0, 100.0), (1, 30.0, 70.0)])
def test_a_t_maze_is_solved_with_its_cue_in_the_context_alone(tmp_path, context_length, low, high):
    """100 episodes: chance is 50 with a standard deviation of 5."""
    folder = collect_scripted("tmaze-15-expert", out=tmp_path, progress=False)
    agent = DecisionTransformerConfig(
        context_length=context_length, window_anchor="last", batch_size=32, learning_rate=1e-3, dropout=0.0
    )
    config = RunConfig(
        data=str(folder), agent=agent, num_steps=500, evaluate_every=500, num_episodes=100, precision="bf16"
    )
    train(config, tmp_path / "run", progress=False)
    evaluations = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    returns = json.loads(evaluations[-1])["episode_returns"]
    assert len(returns) == 100
    assert low <= 100 * sum(returns) / len(returns) <= high

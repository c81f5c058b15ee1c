"""The `README.md` of a saved policy: what it does, what it learned from, how well, and ten lines to use it.

The head is what the Hugging Face Hub reads: tags, and scores as a model index.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chibit.core.config import Checked
from chibit.core.formatting import count, format_mean, format_number, format_setting, listed
from chibit.data.dataset import DatasetSpec
from chibit.environments.data_names import read_name
from chibit.environments.scores import normalized_score
from chibit.evaluation.summary import EvaluationSummary

_RESAMPLES = 10_000
_MOST_NAMES = 100
"""Columns that a card names."""
_FIXED = " Nothing is drawn at random: what the policy has seen decides the action."
_DRAWN = (
    " They are drawn at random, as in its evaluations, with other random numbers in each episode; "
    "`policy.reset(seed=0)` repeats them, and `Policy.from_pretrained(..., greedy=True)` takes the "
    "likeliest action instead."
)
_NORMALIZED = "; the policy normalizes them itself."
_READ = ", and what the episode is for in words, by `policy.instruct` after `reset`."


@dataclass(frozen=True, kw_only=True)
class PolicyScore(Checked):
    """One evaluation of a policy, for its model card."""

    env_id: str
    """Environment that was played."""
    target_return: float | None
    """Raw return that was asked for; None where the method takes none."""
    num_episodes: int
    """Episodes that were played to their end."""
    mean_return: float
    """Mean raw return."""
    std_return: float | None
    """Sample standard deviation of the raw return between episodes; None for one episode."""
    normalized_score: float | None
    """0 (random) to 100 (expert); None without a reference."""


def policy_scores(evaluations: Sequence[EvaluationSummary], spec: DatasetSpec) -> list[PolicyScore]:
    """What evaluations of which not every episode failed come to."""
    return [
        PolicyScore(
            env_id=spec.env_id or "",
            target_return=summary.target_return,
            num_episodes=summary.num_episodes,
            mean_return=summary.mean_return,
            std_return=summary.std_return,
            normalized_score=summary.normalized_score,
        )
        for summary in evaluations
        if summary.mean_return is not None
    ]


def describe_intervals(evaluations: Sequence[EvaluationSummary], spec: DatasetSpec) -> list[str]:
    """A line of the card on each evaluation."""
    lines = []
    for summary in evaluations:
        target, mean = summary.target_return, summary.mean_return
        asked = "" if target is None else f" at target return {format_setting(target)}"
        interval = mean_interval(summary.returns)
        if mean is None or interval is None:
            lines.append(f"- Mean return{asked}: {summary.sample}, so no interval can be given.")
            continue
        shown = [format_number(value, like=interval) for value in (mean, *interval)]
        line = "- Mean return{}: {}, 95% interval {} to {}".format(asked, *shown)
        if spec.score_reference is not None:
            scores = (float(normalized_score(value, spec.score_reference)) for value in (mean, *interval))
            line += "; normalized {}, {} to {}".format(*(format_number(s, decimals=1) for s in scores))
        lines.append(f"{line} (bootstrap over {summary.sample} of this one run).")
    return lines


def mean_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """The 95% percentile bootstrap interval of a mean; None for fewer than two values."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return None
    generator = np.random.default_rng(0)
    means = [array[generator.integers(0, len(array), len(array))].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def model_card(
    agent: str,
    spec: DatasetSpec,
    target_return: float | None,
    scores: Sequence[PolicyScore],
    *,
    draws_actions: bool = False,
    reads_missions: bool = False,
    notes: Sequence[str] = (),
    files: Sequence[str] = (),
    imports: Sequence[str] = (),
) -> str:
    """Write the card.

    Args:
        agent: key of the method.
        spec: of the data the policy was trained on.
        target_return: raw return it asks for; None where the method takes none.
        scores: its evaluations.
        draws_actions: whether it draws its actions at random unless it is told to be greedy.
        reads_missions: whether it is told in words what an episode is for; it normalizes nothing then.
        notes: lines below them.
        files: lines on what else is in the folder.
        imports: lines of Python for modules of the user's own.

    Returns:
        Markdown with a YAML head.
    """
    asked = "" if target_return is None else f" It asks for a return of {format_setting(target_return)}."
    place = spec.env_id or "no known environment"
    physics = (
        " Contacts have the margin of MuJoCo before 3.5: build the environment with "
        "`chibit.make_env(..., d4rl_physics=True)`."
        if spec.d4rl_physics
        else ""
    )
    below = "\n".join(["", *notes, ""]) if notes else ""
    seen = _READ if reads_missions else _NORMALIZED
    further = "\n".join(["", "## Further files", "", *files, ""]) if files else ""
    return f"""---
{_front_matter(agent, spec, scores)}
---
# {agent} on {spec.name}

A policy for {place}, learned offline from logged trajectories by chibit's method `{agent}`.{asked}{physics}

- Data: {_data_line(spec)}
- Observations: {_observation_line(spec)}, as the environment gives them{seen}
- Actions: {_action_line(spec)}{_DRAWN if draws_actions else _FIXED}

## Scores

{_score_table(scores)}
{below}
## Use

```python
{"".join(f"{line}{chr(10)}" for line in imports)}{_example(spec, reads_missions)}
```
{further}"""


def _front_matter(agent: str, spec: DatasetSpec, scores: Sequence[PolicyScore]) -> str:
    """YAML, written as JSON values, which are YAML too."""
    head: dict[str, Any] = {
        "library_name": "chibit",
        "tags": ["reinforcement-learning", "offline-reinforcement-learning", "gymnasium", agent],
    }
    if spec.env_id is not None:
        head["tags"].append(spec.env_id)
    if scores:
        results = [_index_entry(score) for score in scores]
        head["model-index"] = [{"name": f"{agent}-{spec.name}".replace("/", "-"), "results": results}]
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())


def _index_entry(score: PolicyScore) -> dict[str, Any]:
    suffix = "" if score.target_return is None else f" (target return {score.target_return:g})"
    spread = format_mean(score.mean_return, score.std_return).replace("±", "+/-").replace(",", "")
    metrics: list[dict[str, Any]] = [{"type": "mean_reward", "name": f"mean return{suffix}", "value": spread}]
    if score.normalized_score is not None:
        value = round(score.normalized_score, 2)
        metrics.append({"type": "normalized_score", "name": f"normalized score{suffix}", "value": value})
    return {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"type": score.env_id, "name": score.env_id},
        "metrics": metrics,
    }


def _observation_line(spec: DatasetSpec) -> str:
    if not spec.image_shape:
        return f"{count(spec.state_dim, 'number')}{_in_order(spec.observation_names)}"
    depth, height, width = spec.image_shape
    return f"the last {depth} gray pictures of {height} x {width}, uint8"


def _in_order(names: Sequence[str]) -> str:
    shown = listed((f"`{name.replace('`', ' ')}`" for name in names), _MOST_NAMES)
    return f" ({'in this order: ' if len(names) > 1 else ''}{shown})" if names else ""


def _data_line(spec: DatasetSpec) -> str:
    name = read_name(spec.name)
    if name is not None and name.source == "chibit":
        return f"`{spec.name}`, made by chibit's shipped behavior policies; not D4RL's set of that name."
    return f"`{spec.name}`."


def _action_line(spec: DatasetSpec) -> str:
    if spec.num_actions is not None:
        return f"one of {spec.num_actions}, as an integer from 0{_in_order(spec.action_names)}."
    return f"{count(spec.act_dim, 'number')}{_in_order(spec.action_names)}."


def _score_table(scores: Sequence[PolicyScore]) -> str:
    if not scores:
        return "Not evaluated."
    lines = [
        "| environment | target return | episodes | mean return | between episodes | normalized score |",
        "|---|---|---|---|---|---|",
    ]
    for score in scores:
        target = "none" if score.target_return is None else format_setting(score.target_return)
        value, mean = score.normalized_score, score.mean_return
        normalized = "no reference" if value is None else format_number(value, decimals=1)
        spread = "—" if score.std_return is None else f"± {format_number(score.std_return, like=[mean])}"
        lines.append(
            f"| {score.env_id} | {target} | {score.num_episodes} | {format_number(mean)} | {spread} | "
            f"{normalized} |"
        )
    lines.append(
        "\n± is the standard deviation between episodes. A normalized score is 0 for random, 100 for expert."
    )
    return "\n".join(lines)


def _example(spec: DatasetSpec, reads_missions: bool) -> str:
    if spec.env_id is None:
        return _example_without_environment(spec, reads_missions)
    info, told = ("info", '\npolicy.instruct(info["mission"])') if reads_missions else ("_", "")
    extra = ", d4rl_physics=True" if spec.d4rl_physics else ""
    return f"""import chibit

policy = chibit.Policy.from_pretrained(".")  # this folder, or its id on the Hub
env = chibit.make_env("{spec.env_id}"{extra}, max_episode_steps=policy.max_episode_steps)
observation, {info} = env.reset(seed=0)
policy.reset(){told}
total, done = 0.0, False
while not done:
    observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
    done = terminated or truncated
    policy.observe(reward, done)
    total += reward
print(total)"""


def _example_without_environment(spec: DatasetSpec, reads_missions: bool) -> str:
    """For data that name no environment: the caller's own plant is two functions."""
    told = '\npolicy.instruct("go to the red ball")  # what this episode is for' if reads_missions else ""
    kind = ", np.uint8" if spec.image_shape else ""
    return f"""import numpy as np
import chibit

policy = chibit.Policy.from_pretrained(".")  # this folder, or its id on the Hub


def measure():  # put the sensors of your plant here
    return np.zeros({spec.observation_shape}{kind})


def apply(action):  # put its actuators here: the reward, and whether the episode is over
    return 0.0, False


policy.reset(){told}
for _ in range(min(10, policy.max_episode_steps)):
    action = policy.act(measure())
    reward, done = apply(action)
    policy.observe(reward, done)
    if done:
        break
print(action)"""

"""Writes run directories as training does, from made-up curves, for tests and benchmarks of reports."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from chibit.core.config import to_json
from chibit.core.score_rules import curve_scores
from chibit.judging.judgement import FILE as JUDGEMENTS
from chibit.judging.judgement import (
    SCHEMA,
    ActionError,
    AtLoggedSteps,
    Estimate,
    Histogram,
    Judgement,
    LogProfile,
    LogSummary,
    PlayedInModel,
    SelfTest,
)

REFERENCES = {
    "hopper": (-20.272305, 3234.3),
    "halfcheetah": (-280.178953, 12135.0),
    "walker2d": (1.629008, 4592.3),
}
TARGETS = {"hopper": (3600.0, 1800.0), "halfcheetah": (12000.0, 6000.0), "walker2d": (5000.0, 2500.0)}
DIFFICULTY = {"medium": 50.0, "medium-replay": 40.0, "medium-expert": 90.0}
NINE = tuple(f"{env}-{level}-v2" for env in REFERENCES for level in DIFFICULTY)


def write_run(
    study: Path,
    arm: str,
    dataset: str,
    seed: int,
    *,
    num_evaluations: int = 20,
    num_episodes: int = 10,
    gain: float = 0.0,
    targets: tuple[float, ...] | None = None,
    return_conditioned: bool = True,
    normalized: bool = True,
    settings: dict | None = None,
    data_hash: str | None = None,
    finished: bool = True,
    name: str | None = None,
) -> Path:
    """One run directory; its final score is the data set's difficulty + `gain` + noise."""
    digest = hashlib.sha256(repr((arm, dataset, seed, settings)).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    env = next((env for env in REFERENCES if env in dataset), "hopper")
    level = next((level for level in sorted(DIFFICULTY, key=len, reverse=True) if level in dataset), "medium")
    targets = (targets or TARGETS[env]) if return_conditioned else (None,)
    slug = "".join(c if c.isalnum() or c in "._-" else "-" for c in f"{arm}-{dataset}")
    folder = study / (name or f"{slug}-s{seed}-{digest.hex()[:8]}")
    folder.mkdir(parents=True)
    num_steps = 5000 * num_evaluations
    config = {
        "agent_name": "dt",
        "agent": {"context_length": 20, "learning_rate": 1e-4, "init": arm[:40]},
        "data": dataset,
        "arm": arm,
        "num_steps": num_steps,
        "evaluate_every": 5000,
        "num_episodes": num_episodes,
        "target_returns": list(targets) if return_conditioned else None,
        "seed": seed,
        "precision": "fp32",
        **(settings or {}),
    }
    write_json(folder / "config.json", {"schema": 1, "arm": arm, "study": study.name, "config": config})
    write_json(folder / "provenance.json", provenance(dataset, env, normalized, data_hash))
    metrics = [
        {
            "step": step,
            "seconds": step / 50,
            "train/loss": 0.6 * np.exp(-step / 20_000) + 0.05 + 0.01 * rng.random(),
        }
        for step in range(500, num_steps + 1, 500)
    ]
    write_lines(folder / "metrics.jsonl", metrics)
    (folder / "train.log").write_text("started\n")
    evaluations, scores = make_evaluations(
        rng, DIFFICULTY[level] + gain, REFERENCES[env], targets, num_evaluations, num_episodes, normalized
    )
    if not finished:
        write_lines(folder / "evaluations.jsonl", evaluations[: len(evaluations) // 2])
        return folder
    write_lines(folder / "evaluations.jsonl", evaluations)
    result = {
        "schema": 1,
        "status": "finished",
        "steps": num_steps,
        "train_seconds": num_steps / 50,
        "evaluation_seconds": 90.0,
        "score_unit": "normalized" if normalized else "return",
        "scores": scores,
        "behaviour_mean_return": 0.45 * REFERENCES[env][1],
        "behaviour_score": 45.0 if normalized else None,
        "parameters": {"total": 727_000, "trainable": 727_000, "blocks": 594_816},
    }
    write_json(folder / "result.json", result)
    return folder


def log_held_out(run: Path, errors) -> None:
    """Add held-out action errors to a run's metrics, evenly over its steps."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for place, error in zip(
        np.linspace(0, len(lines) - 1, len(errors)).round().astype(int), errors, strict=True
    ):
        lines[place]["held_out/action_error"] = float(error)
    write_lines(run / "metrics.jsonl", lines)


def make_evaluations(rng, level, reference, targets, num_evaluations, num_episodes, normalized):
    """Lines of evaluations.jsonl and the scores of result.json for one run."""
    low, high = reference
    final = level + 4 * rng.normal()
    lines, curves = [], {target: [] for target in targets}
    for index in range(num_evaluations):
        step = 5000 * (index + 1)
        for place, target in enumerate(targets):
            mean = (final - 12 * place) * (1 - np.exp(-(index + 1) / 4)) + 3 * rng.normal()
            returns = low + (high - low) * (mean + 6 * rng.normal(size=num_episodes)) / 100
            score = float(100 * (returns.mean() - low) / (high - low))
            lines.append(
                {
                    "step": step,
                    "seconds": step / 50,
                    "target_return": target,
                    "episode_returns": returns.tolist(),
                    "episode_lengths": [1000] * num_episodes,
                    "normalized_score": score if normalized else None,
                    "failed_episodes": [],
                    "env_seeds": list(range(num_episodes)),
                }
            )
            curves[target].append(
                (step, score if normalized else float(np.mean(returns.tolist())), float(returns.mean()))
            )
    return lines, [target_scores(target, points) for target, points in curves.items()]


def target_scores(target, points):
    """One entry of result.json's scores."""
    rules = curve_scores([score for _, score, _ in points])
    step = points[rules.converged_index][0]
    return {
        "target_return": target,
        "last": rules.last,
        "last4": rules.last4,
        "best": rules.best,
        "best_step": points[rules.best_index][0],
        "mean_return_last": points[-1][2],
        "steps_to_converge": step,
        "seconds_to_converge": step / 50,
    }


def provenance(dataset, env, normalized, data_hash):
    """The content of provenance.json."""
    return {
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "argv": ["chibit", "study", "table2"],
        "versions": {"chibit": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "mujoco": "4.0.0"},
        "host": {"platform": "Linux", "processor": "some processor", "python": "3.11.7"},
        "started": "2026-11-22T10:00:00+00:00",
        "data_name": dataset,
        "data_hash": data_hash or hashlib.sha256(dataset.encode()).hexdigest(),
        "data_episodes": 2186,
        "data_steps": 999_906,
        "dataset": {
            "name": dataset,
            "env_id": env,
            "score_reference": REFERENCES[env] if normalized else None,
        },
        "physics": {"mujoco": "4.0.0", "contact_margin": "halved"},
        "parameters": {"total": 727_000, "trainable": 727_000, "blocks": 594_816},
    }


def write_study(study: Path, arms: dict[str, float], datasets, seeds, **settings) -> Path:
    """A whole study: arm to gain, every data set, every seed."""
    for arm, gain in arms.items():
        for dataset in datasets:
            for seed in seeds:
                write_run(study, arm, dataset, seed, gain=gain, **settings)
    return study


def write_attention(run: Path, *, num_layers: int = 3, tokens: int = 59) -> None:
    """Attention maps as the evaluation writes them."""
    rng = np.random.default_rng(0)
    weights = np.tril(rng.random((num_layers, tokens, tokens)) ** 6 + np.eye(tokens))
    weights = (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)
    (run / "attention").mkdir(exist_ok=True)
    np.savez_compressed(
        run / "attention" / "attention.npz",
        weights=weights,
        sharpened=weights**2 / (weights**2).sum(axis=-1, keepdims=True),
        temperature=np.float64(0.1),
        layers=np.arange(1, num_layers + 1),
        num_layers=np.int64(num_layers),
        labels=np.array([f"{'Rsa'[i % 3]}{i // 3 + 1}" for i in range(tokens)]),
        rows=np.arange(4),
    )


def write_json(path: Path, value) -> None:
    """A JSON file."""
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def write_lines(path: Path, records) -> None:
    """A JSON-lines file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    write_study(Path(sys.argv[1]), {"random": 0.0, "chibit": 4.0, "dt": -1.0}, NINE[:3], range(5))


def unplay(run: Path) -> None:
    """Turn a run into one of data without a simulator, which held episodes out."""
    write_lines(run / "evaluations.jsonl", [])
    write_json(run / "result.json", json.loads((run / "result.json").read_text()) | {"scores": []})
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for place, line in enumerate(lines):
        error = 0.1 + 1 / (place + 1)
        line |= {f"{part}/action_error": error * times for part, times in (("held_out", 1), ("train", 0.8))}
        line |= {"held_out/best_tenth_action_error": 0.7 * error, "held_out/dimension_0": error}
        line |= {"held_out/dimension_1": 2 * error}
    write_lines(run / "metrics.jsonl", lines)


def write_judgements(
    run: Path, totals: dict[float | None, float], *, disagreement: float = 0.1, num_episodes: int = 100
) -> None:
    """What `chibit judge` would leave: a return in the model for each target; a clone has 1,000 there."""

    def histogram(low, high, bins=20):
        return Histogram(low=low, high=high, counts=tuple(range(1, bins + 1)))

    def played(total, disagreement):
        members = tuple(total * (1 + 0.02 * i) for i in range(-2, 3))
        return PlayedInModel(
            value=Estimate(members=tuple(member / 5 for member in members)), total=Estimate(members=members),
            length=900.0, disagreement=disagreement, clipped=0.01,
        )  # fmt: skip

    error = ActionError(mean=0.2, by_dimension=(0.5, 0.75))
    actions = (histogram(-1, 1), histogram(-1, 1))
    at_steps = AtLoggedSteps(error=error, best_error=error, far=0.02, actions=actions)
    profile = LogProfile(
        is_discrete=False, returns=histogram(0, 2000), lengths=histogram(10, 1000), rewards=histogram(0, 3),
        states=(histogram(-3, 3),) * 11, actions=actions, constant_states=(4, 7), constant_actions=(1,),
    )  # fmt: skip
    log = LogSummary(
        data="hopper-medium-v2", num_episodes=num_episodes, mean_return=900.0, std_return=200.0,
        best_return=2000.0, mean_value=200.0, lowest_value=10.0, best_value=400.0, discount=0.99,
        horizon=1000, self_test=SelfTest(step_error=0.02, lengths=(1, 5, 25), fits=(1.0, 0.99, 0.95)),
        clone=played(1000.0, 0.1), clone_at_steps=at_steps, noise_floor=0.2,
        notes=("the limit is not known",), profile=profile,
    )  # fmt: skip
    judgements = [
        Judgement(
            name=run.name if target is None else f"{run.name} asked for {target:g}",
            target_return=target, in_model=played(total, disagreement), at_steps=at_steps, log=log,
        )
        for target, total in totals.items()
    ]  # fmt: skip
    record = {"schema": SCHEMA, "judgements": [to_json(one) for one in judgements]}
    write_json(run / JUDGEMENTS, record)

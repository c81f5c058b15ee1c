"""Write or check the losses of short fixed runs of the sequence agent.

    python tests/golden/make_sequence_losses.py           write sequence_losses.json
    python tests/golden/make_sequence_losses.py --check   say whether they are equal to the bit

After a refactoring they must be, on one machine and one version of torch. After a change of the
computation, write them anew and say so in the commit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from sequence_toys import corpus_folder, language_model_folder, make_small

FILE = Path(__file__).with_name("sequence_losses.json")
STEPS = 12
RUNS = {
    "chen": {"timestep_position": "before_norm", "timestep_table": "normal"},
    "wrapper": {},
    "released": {"head": "tied"},
    "lamo": {"projections": "residual_mlp", "tuning": "lora"},
    "equation_9": {
        "initializer": "language_model", "similarity_weight": 0.1, "num_clusters": 5, "language_weight": 0.2,
        "language_corpus": "corpus", "language_block": 16, "auxiliary_decay_steps": 10,
    },
}  # fmt: skip
"""Settings on top of `sequence_toys.SMALL`; the folders are put in for their names."""


def losses(settings: dict) -> list[float]:
    """Losses of the first steps, with dropout."""
    folders = {"initializer": language_model_folder, "language_corpus": corpus_folder}
    settings = {name: folders[name]() if name in folders else value for name, value in settings.items()}
    agent, sampler = make_small(**settings)
    return [agent.update(sampler.sample())["train/loss"] for _ in range(STEPS)]


def main() -> None:
    torch.set_num_threads(1)
    found = {name: losses(settings) for name, settings in RUNS.items()}
    if "--check" in sys.argv:
        recorded = json.loads(FILE.read_text())
        changed = [name for name in RUNS if recorded[name] != found[name]]
        sys.exit(f"changed: {', '.join(changed)}" if changed else 0)
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

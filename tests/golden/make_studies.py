"""Write or check the names of every study's runs: each ends in the hash of what decides the run's numbers.

    python tests/golden/make_studies.py            write studies.json
    python tests/golden/make_studies.py --check    say which studies have changed

A study that was begun finds its runs by these names. Write them anew only with a study that is meant to be
another one, and say so in the commit.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from chibit.studies import STUDIES
from chibit.study_runs import study_configs
from chibit.training.run_config import run_path

FILE = Path(__file__).with_name("studies.json")
IN_FULL = ("rates", "fair", "fair_baselines", "fair_twice", "low_data", "sources")
"""Studies whose names are kept as they are, those of the first seed; of the others a hash is."""


def names(study: str, seeds: tuple[int, ...] = (0,)) -> list[str]:
    """Folders of a study's runs, each arm's backbone at a step size of its own."""
    entry = STUDIES[study]
    rates = {arm: 1e-3 * (i + 1) for i, arm in enumerate(entry.arms)} if entry.has_chosen_rates else None
    configs = study_configs(study, seeds=seeds, rates=rates)
    return [run_path(config, Path("/nowhere"), study).name for config in configs]


def record() -> dict[str, object]:
    """All names of all studies."""
    found: dict[str, object] = {study: names(study) for study in IN_FULL}
    for study in STUDIES:
        everything = "\n".join(names(study, (0, 1, 2)))
        found[f"SHA-256 of {study}"] = hashlib.sha256(everything.encode()).hexdigest()
    return found


def main() -> None:
    """Write or check."""
    found = record()
    if "--check" not in sys.argv:
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        return
    recorded = json.loads(FILE.read_text())
    changed = [name for name in recorded if found.get(name) != recorded[name]]
    sys.exit(f"changed: {', '.join(changed)}" if changed else 0)


if __name__ == "__main__":
    main()

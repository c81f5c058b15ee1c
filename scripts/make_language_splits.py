"""Write the reset seeds of the language splits: src/chibit/assets/language/splits.json (about a minute).

Run again only for new levels: what is there decides which episodes published numbers are of.
"""

import json
from pathlib import Path

from chibit.environments.language import FITS, TRAINING_SEEDS, build_level, quiet
from chibit.environments.registry import ENVIRONMENTS, LANGUAGE_TASKS

NUMBER = 256
TRIES_A_SEED = 100
PATH = Path(__file__).parents[1] / "src" / "chibit" / "assets" / "language" / "splits.json"


def find_seeds(level: str, kind: str, number: int) -> list[int]:
    """The first reset seeds of a level whose instruction is of a kind; fewer where too few of many are."""
    env, found = build_level(level, None), list[int]()
    for seed in range(TRIES_A_SEED * number):
        with quiet():
            said = str(env.reset(seed=seed)[0]["mission"])
        if FITS[kind](said):
            found.append(seed)
            if len(found) == number:
                break
    return found


def main() -> None:
    """Look for the seeds of every level and kind."""
    lists = {}
    for env_id in LANGUAGE_TASKS.values():
        level = ENVIRONMENTS[env_id].level
        lists[level] = {
            kind: find_seeds(level, kind, NUMBER) for kind in ("seen", "held_out", "typed", "colored")
        }
        assert all(seed < TRAINING_SEEDS for seeds in lists[level].values() for seed in seeds)
        print(level, {kind: len(seeds) for kind, seeds in lists[level].items()})
    rows = ",\n".join(f'"{name}": {json.dumps(found)}' for name, found in lists.items())
    PATH.write_text("\n".join(["{", rows, "}", ""]))


if __name__ == "__main__":
    main()

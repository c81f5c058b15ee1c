"""Write the reset seeds of the language splits: src/chibit/assets/language/splits.json (about a minute).

Run again only for new levels: what is there decides which episodes published numbers are of.
"""

import json
from pathlib import Path

from chibit.environments.language import TRAINING_SEEDS, find_seeds
from chibit.environments.registry import ENVIRONMENTS, LANGUAGE_TASKS

NUMBER = 256
PATH = Path(__file__).parents[1] / "src" / "chibit" / "assets" / "language" / "splits.json"

lists = {}
for env_id in LANGUAGE_TASKS.values():
    level = ENVIRONMENTS[env_id].level
    lists[level] = {
        kind: find_seeds(level, kind, NUMBER, 0) for kind in ("seen", "held_out", "typed", "colored")
    }
    assert all(seed < TRAINING_SEEDS for seeds in lists[level].values() for seed in seeds)
    print(level, {kind: len(seeds) for kind, seeds in lists[level].items()})
PATH.write_text(
    "\n".join(["{", ",\n".join(f'"{name}": {json.dumps(found)}' for name, found in lists.items()), "}", ""])
)

"""Two initializers compared, as an example of a study of one's own.

In the folder of this file:

    chibit study my_study:orthogonal_or_not --seeds 0 1
    chibit report runs/orthogonal_or_not
"""

from __future__ import annotations

import my_initializer  # registers it

from chibit.recipes import RECIPES, Recipe
from chibit.studies import Study

RECIPES["orthogonal"] = Recipe(
    summary=f"random with {my_initializer.orthogonal.__name__} matrices",
    settings={"initializer": "my_initializer:orthogonal"},
)

orthogonal_or_not = Study(
    summary="does it matter how an untrained model is drawn?",
    arms=("random", "orthogonal"),
    data=("hopper-medium-replay",),
    num_steps=3_000,
    evaluate_every=500,
    precision="bf16",
    comparisons=(("orthogonal", "random"),),
)

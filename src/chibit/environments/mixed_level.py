"""A room in which the verb counts: go to an object or a door, pick an object up, or open a door."""

from __future__ import annotations

from typing import Any

from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.envs.babyai.core.verifier import (
    ActionInstr,
    GoToInstr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
)

_NUM_OBJECTS, _NUM_DOORS, _ROOM_SIZE = 4, 2, 6


class MixedLocal(RoomGridLevel):
    """The middle one of three rooms in a row, with four objects and a closed door to either side.

    Any object may be gone to or picked up, any door gone to or opened: what is seen does not tell which.
    """

    def __init__(self, **options: Any) -> None:
        """Lay out the rooms; options are those of BabyAI's levels."""
        super().__init__(num_rows=1, num_cols=3, room_size=_ROOM_SIZE, **options)

    def gen_mission(self) -> None:
        """Place everything, and choose a verb and what it is done to."""
        self.place_agent(1, 0)
        doors = [self.add_door(1, 0, side, locked=False)[0] for side in (0, 2)]
        objects = self.add_distractors(1, 0, num_distractors=_NUM_OBJECTS, all_unique=False)
        self.check_objs_reachable()
        is_door = self._rand_bool()
        chosen = self._rand_elem(doors if is_door else objects)
        described = ObjDesc(chosen.type, chosen.color)
        other = OpenInstr(described) if is_door else PickupInstr(described)
        self.instrs: ActionInstr = GoToInstr(described) if self._rand_bool() else other

"""The shipped behavior policies that collect data."""

from chibit.data.collect.behavior.ladder import BehaviorPolicy, Ladder, PolicyRecord, load_ladder

__all__ = ["BehaviorPolicy", "Ladder", "PolicyRecord", "load_ladder"]

"""The shipped behaviour policies that collect data."""

from chibit.data.collect.behavior.ladder import BehaviourPolicy, Ladder, PolicyRecord, load_ladder

__all__ = ["BehaviourPolicy", "Ladder", "PolicyRecord", "load_ladder"]

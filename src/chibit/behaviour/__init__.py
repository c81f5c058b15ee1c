"""The shipped behaviour policies that collect data."""

from chibit.behaviour.ladder import BehaviourPolicy, PolicyRecord

__all__ = ["BehaviourPolicy", "PolicyRecord"]

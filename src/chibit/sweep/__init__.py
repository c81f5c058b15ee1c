"""Many runs: in this process, in a pool of local ones, or on a Ray cluster."""

from chibit.sweep.driver import EngineName, run_all
from chibit.sweep.tasks import Outcome

__all__ = ["EngineName", "Outcome", "run_all"]

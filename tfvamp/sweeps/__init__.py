"""Many runs from one file of settings: a grid, a random sample, or a search."""

from tfvamp.sweeps.plan import Planned, planned
from tfvamp.sweeps.runner import Done, sweep
from tfvamp.sweeps.spec import Between, Spec, read

__all__ = ["Between", "Done", "Planned", "Spec", "planned", "read", "sweep"]

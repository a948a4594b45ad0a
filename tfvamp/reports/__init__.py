"""Reports of runs: one HTML file that needs nothing else."""

from tfvamp.reports.write import report

__all__ = ["report"]

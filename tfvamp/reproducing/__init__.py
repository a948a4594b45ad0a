"""The paper's tables and figures from runs of tfvamp: cells and how far they are, verdicts, tables, figures."""

from tfvamp.reproducing.cells import Cell, Look, cells_of, keep
from tfvamp.reproducing.figures import draw
from tfvamp.reproducing.hours import hours_of
from tfvamp.reproducing.results import Result
from tfvamp.reproducing.running import carry_out
from tfvamp.reproducing.tables import columns, commands, state_of
from tfvamp.reproducing.verdicts import ours, verdict

__all__ = [
    "Cell",
    "Look",
    "Result",
    "carry_out",
    "cells_of",
    "columns",
    "commands",
    "draw",
    "hours_of",
    "keep",
    "ours",
    "state_of",
    "verdict",
]

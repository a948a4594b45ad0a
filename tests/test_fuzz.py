"""Damaged files of every format; `make fuzz` does it on the published files where they are."""

import sys

import pytest

from tests import fuzz

ROUNDS = 100  # `make fuzz` has 200


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of one reading is read from Linux")
@pytest.mark.parametrize("name", fuzz.READERS)
def test_damaged_files_are_read_or_refused(name):
    outcomes = fuzz.fuzz(name, rounds=ROUNDS)
    assert outcomes["read"] + outcomes["refused"] == ROUNDS
    assert outcomes["refused"] > 0 or name == "run_history"  # which is read up to its damage

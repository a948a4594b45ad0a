"""Damaged files of every format, some rounds; `make fuzz` does more, on the published files where they are."""

import pytest

from tests import fuzz


@pytest.mark.slow
@pytest.mark.parametrize("name", fuzz.READERS)
def test_damaged_files_are_read_or_refused(name):
    outcomes = fuzz.fuzz(name, rounds=20 if name == "mnist5k" else 200)
    assert outcomes["refused"] > 0
    assert sum(outcomes.values()) == (20 if name == "mnist5k" else 200)

"""Evaluations that were stopped go on where they were, and give the numbers of an unbroken one."""

import json
import os
import time

import numpy as np
import pytest

import tfvamp
from tests.oracles import TwoLayers
from tfvamp.errors import RunError, UsageError
from tfvamp.evaluation import annealing, images, importance, sharing
from tfvamp.runs import owner
from tfvamp.runs.unfinished import Unfinished

AIS = {"estimator": "ais", "chains": 2, "steps": 2, "leapfrogs": 1}
WAYS = [
    {"proposal": "encoder"},
    {"proposal": "refined", "refine_steps": 3},
    AIS,
    AIS | {"proposal": "refined", "refine_steps": 3},
]
IDS = ["importance", "refined", "ais", "ais-refined"]


class Stopped(Exception):
    """What a test stops an evaluation with."""


def stopping(after: int):
    """An `advance` that stops at its call number `after`."""
    calls = []

    def advance(done, total):
        calls.append(done)
        if len(calls) == after:
            raise Stopped

    return advance


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for module in (images, annealing):
        monkeypatch.setattr(module, "AT_ONCE", 4)
    monkeypatch.setattr("tfvamp.evaluation.needs.AT_ONCE", 4)
    monkeypatch.setattr(importance, "WEIGHED", 4)
    monkeypatch.setattr(annealing, "SETTLING", 1)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_finished_blocks_are_taken_as_they_are(way):
    model = TwoLayers(components=3)
    x = model.draw(9)
    how = {"num_samples": 10, "jit": False, **way}
    kept: dict = {}
    whole = tfvamp.log_likelihood(model, x, kept=kept, **how)
    names = list(kept)
    assert len(names) == 3  # refined proposals are large: they go with the last estimate that needs them
    for name, arrays in kept.items():  # another number in a block is in the result: nothing is computed again
        if "per_example" in arrays:
            arrays["per_example"] = arrays["per_example"] + 1.0
        if "forward" in arrays:
            arrays["forward"] = arrays["forward"] + 1.0
        assert name in names
    again = tfvamp.log_likelihood(model, x, kept=kept, **how)
    np.testing.assert_allclose(again.per_example, whole.per_example + 1.0, rtol=1e-9)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_a_stopped_evaluation_gives_the_numbers_of_an_unbroken_one(run, way):
    """Stopped in each of its stages, each time begun again."""
    tfvamp.evaluate(run, 6, limit=10, **way)
    opened = tfvamp.Run(run)
    unbroken, arrays = opened.evaluation(), opened.evaluated_arrays()
    for after in (2, 4, 5) if len(way) > 1 else (2,):
        with pytest.raises(Stopped):
            tfvamp.evaluate(run, 6, limit=10, advance=stopping(after), **way)
        assert len(list((run / "evaluations").glob("unfinished-*"))) == 1
    tfvamp.evaluate(run, 6, limit=10, **way)
    assert not list((run / "evaluations").glob("unfinished-*"))
    number = unbroken.pop("number")
    found = opened.evaluation()
    assert found.pop("number") == number + 1 and found == unbroken
    for name, values in opened.evaluated_arrays().items():
        np.testing.assert_array_equal(values, arrays[name])


def blocks_of(run, **other) -> Unfinished:
    return Unfinished(tfvamp.Run(run).folder, {"seed": 0, **other})


def test_only_your_own_blocks_of_the_same_evaluation_are_taken(run, monkeypatch):
    arrays = {"x": np.arange(3.0)}
    ours = blocks_of(run)
    ours["first"], ours["second"] = arrays, {"x": np.zeros(2)}
    assert list(ours) == ["first", "second"] and len(ours) == 2
    np.testing.assert_array_equal(blocks_of(run)["first"]["x"], arrays["x"])
    assert "first" not in blocks_of(run, weights="others")
    place = next((run / "evaluations").glob("unfinished-*"))
    (place / "third.block").write_bytes((place / "first.block").read_bytes())  # under another name
    assert ours.get("third") is None
    damaged = bytearray((place / "second.block").read_bytes())
    damaged[-30] ^= 1
    (place / "second.block").write_bytes(damaged)
    assert ours.get("second") is None
    (place / "second.block").write_bytes(b"")
    assert ours.get("second") is None
    del ours["second"]
    monkeypatch.setattr(owner, "_key", lambda make: b"of somebody else, of 32 bytes...")
    assert ours.get("first") is None
    monkeypatch.setattr(owner, "_key", lambda make: None)  # nothing can be signed: nothing is kept
    ours["fourth"] = arrays
    assert "fourth" not in list(ours)


def test_what_was_stopped_long_ago_goes(run):
    old, new = blocks_of(run), blocks_of(run, seed=1)
    old["first"], new["first"] = {"x": np.zeros(1)}, {"x": np.zeros(1)}
    place = run / "evaluations" / f"unfinished-{old._digest[:16]}"
    long_ago = time.time() - 8 * 24 * 3600
    os.utime(place, (long_ago, long_ago))
    third = blocks_of(run, seed=2)
    assert not place.exists() and list(new) == ["first"] and list(third) == []
    assert json.loads((run / "config.json").read_text())  # nothing else went


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("way", [WAYS[1], AIS, AIS | {"estimator": "bdmc"}], ids=["refined", "ais", "bdmc"])
def test_processes_that_divide_the_images_give_the_numbers_of_one(run, way, monkeypatch):
    opened, split = tfvamp.Run(run), "simulated" if way.get("estimator") == "bdmc" else "test"
    settings = way if "estimator" in way else {"num_samples": 6, **way}
    tfvamp.evaluate(run, limit=10, **settings)
    whole, arrays = opened.evaluation(split), opened.evaluated_arrays(split)
    computed: list[str] = []
    keep = Unfinished.__setitem__
    monkeypatch.setattr(
        Unfinished, "__setitem__", lambda self, *item: (computed.append(item[0]), keep(self, *item))
    )
    shares = {}
    for share in ("2/3", "3/3", "1/3"):
        assert (tfvamp.evaluate(run, limit=10, share=share, **settings) is None) == (share != "1/3")
        shares[share], computed = set(computed), []
    assert all(shares.values())
    assert sum(len(of) for of in shares.values()) == len(
        set().union(*shares.values())
    )  # none was computed twice
    divided = opened.evaluation(split)
    assert divided.pop("number") == whole.pop("number") + 1 and divided == whole
    for name, values in opened.evaluated_arrays(split).items():
        np.testing.assert_array_equal(values, arrays[name], err_msg=name)


@pytest.mark.usefixtures("eager")
def test_the_first_process_computes_what_another_does_not(run, monkeypatch):
    monkeypatch.setattr(sharing, "SHORTEST_WAIT", 0.1)
    monkeypatch.setattr(sharing, "BETWEEN_LOOKS", 0.01)
    whole = tfvamp.evaluate(run, 6, limit=10, proposal="encoder")
    said: list[str] = []
    alone = tfvamp.evaluate(run, 6, limit=10, proposal="encoder", share="1/2", say=said.append)
    assert alone["log_likelihood"] == whole["log_likelihood"]
    assert [line.split(":")[0].split(" (")[0] for line in said] == [
        "waiting for the other processes",
        "nothing comes from the other processes",
    ]


def test_a_process_that_died_is_waited_for_once(monkeypatch):
    """Of four missing blocks the first alone is waited for; when the other comes back, all are."""
    monkeypatch.setattr(sharing, "BETWEEN_LOOKS", 0.001)
    monkeypatch.setattr(sharing, "SHORTEST_WAIT", 0.05)
    kept: dict = {}
    shared = sharing.Shared(kept, sharing.Share(0, 2))
    assert shared.to_compute("0", 0, 8)
    shared["0"] = {}
    times = []
    for block in range(4, 8):
        began = time.monotonic()
        assert shared.to_compute(str(block), block, 8)
        times.append(time.monotonic() - began)
        time.sleep(0.02)  # computed
        shared[str(block)] = {}
    assert times[0] > 0.05 and max(times[1:]) < 0.04
    kept["of the other"] = {}
    began = time.monotonic()
    assert shared.to_compute("8", 8, 9) and time.monotonic() - began > 0.05
    del shared["of the other"]
    assert "of the other" in kept
    del shared["0"]
    assert "0" not in kept


def test_a_share_that_cannot_be_kept_is_said(run, monkeypatch):
    monkeypatch.setattr(owner, "sign", lambda statement: None)
    with pytest.raises(RunError, match="a share cannot be kept: the run folder must be writable"):
        tfvamp.evaluate(run, 6, limit=10, proposal="encoder", share="2/2")


@pytest.mark.parametrize("share", ["0/2", "3/2", "1", "1/0", "-1/2", "a/b", "1/2/3", "1/99999", "\u0661/2"])
def test_a_share_that_is_none_is_refused(run, share):
    with pytest.raises(UsageError, match="a share must be I/N"):
        tfvamp.evaluate(run, 6, share=share)

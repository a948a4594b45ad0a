"""Pickles from anywhere: arrays are read, everything else is refused, and nothing runs."""

import builtins
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from tfvamp.datasets import safe_pickle
from tfvamp.datasets.safe_pickle import UnsafePickleError


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL))
@pytest.mark.parametrize("dtype", ["uint8", "<f8", ">f4", "int64", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back(protocol, dtype, order):
    array = np.asarray(np.random.default_rng(0).uniform(0, 99, (3, 4, 2)), order=order).astype(dtype)
    for value in (array, [array], {"a": array, "b": [array, array]}, (1, 2.5, "text", None, True, array)):
        back = safe_pickle.loads(pickle.dumps(value, protocol=protocol))
        assert type(back) is type(value) or isinstance(value, tuple)
    back = safe_pickle.loads(pickle.dumps({"a": array}, protocol=protocol))["a"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype


@pytest.mark.parametrize(
    "value, text",
    [
        (Calls(os.system, "touch run"), "posix.system"),
        (Calls(builtins.eval, "open('run', 'w')"), r"builtin.*\.eval"),
        (Calls(builtins.getattr, "a", "upper"), r"builtin.*\.getattr"),
        ([Calls(os.system, "touch run")], "posix.system"),
        ({"training": Calls(Calls, 1)}, "Calls"),
        (np.array([{"a": 1}], object), "dtype 'O8', not of numbers|objects"),
        (np.array(["text"]), "dtype 'U4', not of numbers"),
        (np.zeros(2, [("a", "f4")]), "dtype 'V4', not of numbers"),
        (Calls(np.ndarray, (2**40,)), "calls numpy.ndarray"),
        (Calls(np.dtype, "O"), "dtype 'O', not of numbers"),
        (bytearray(b"x"), "bytearray|damaged"),
        ({1, 2}, r"\.set|damaged"),
        (complex(1, 2), r"builtin.*\.complex"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_is_no_array_of_numbers_is_refused(value, text, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafePickleError, match=text):
        safe_pickle.loads(pickle.dumps(value, protocol=protocol))
    assert not list(tmp_path.iterdir())


def array_state(shape, code="u1", contents=b""):
    """A pickled array whose parts contradict each other."""
    reconstruct = np.zeros(1).__reduce__()[0]

    class Fake:
        def __reduce__(self):
            return reconstruct, (np.ndarray, (0,), b"b"), (1, shape, np.dtype(code), False, contents)

    return pickle.dumps(Fake(), protocol=3)


def lists_in_lists(depth: int) -> bytes:
    """A list of two lists, both the one before, and so on: whoever shows it in words writes 2^depth of them."""
    steps = [
        b"]q" + bytes([i]) + b"(h" + bytes([i - 1]) + b"h" + bytes([i - 1]) + b"e" for i in range(1, depth)
    ]
    return b"\x80\x02]q\x00" + b"".join(steps) + b"cnumpy\ndtype\nh" + bytes([depth - 1]) + b"\x85R."


def same_text(times: int) -> bytes:
    """One text of 1 MiB turned into bytes many times over."""
    text = b"X" + struct.pack("<I", 2**20) + b"x" * 2**20  # BINUNICODE
    encode = b"h\x00h\x01h\x02\x86R"  # (text, "latin1"), REDUCE
    return (
        b"\x80\x02(c_codecs\nencode\nq\x00"
        + text
        + b"q\x01X\x06\x00\x00\x00latin1q\x02"
        + encode * times
        + b"l."
    )


@pytest.mark.parametrize(
    "contents, text",
    [
        (array_state((2**32,)), "shape .* with 0 bytes"),
        (array_state((2**20, 2**20), "f8", b"12345678"), "with 8 bytes"),
        (array_state((-1,), contents=b""), "an array of shape"),
        (array_state((1,) * 9, contents=b"1"), "dtype or shape"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**32) + b"x.", "damaged"),  # BINBYTES8 of 4 GiB
        (b"\x80\x05\x96" + struct.pack("<Q", 2**32) + b"x.", "damaged"),  # BYTEARRAY8 of 4 GiB
        (b"\x80\x04K\x01r" + struct.pack("<I", 2**31) + b".", None),  # a memo of 2^31 entries
        (b"(" * 100_000 + b"l" * 50_000, "damaged"),  # lists in lists
        (b"]" + b"]" * 100_000 + b"a" * 100_000 + b".", None),
        (b"", "damaged"),
        (b"cos\nsystem\n(S'touch run'\ntR.", "os.system"),
        (b"\x80\x02(U\x01acos\nsystem\no.", "damaged|os.system"),
        (b"\x80\x02P1\n.", "damaged"),  # a persistent id
        (b"\x80\x02\x82\x01.", "damaged"),  # an extension
        (same_text(10), None),
        (same_text(17), "more text into bytes than a file holds"),
        (
            b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.",
            "keys are no texts",
        ),  # hashed, deep tuples crash
        (
            b"\x80\x02]cnumpy\nndarray\n}U\x01aK\x01sb.",
            "neither an array nor a dtype",
        ),  # sets what a class has
        (b"\x80\x02(" + b"".join(b"U\x02%02dK\x01" % i for i in range(17)) + b"d.", "more than 16 entries"),
        (b"\x80\x02cnumpy\ndtype\nU\x05u1,u1\x85R.", "dtype 'u1,u1', not of numbers"),
        (b"\x80\x02cnumpy\ndtype\nU\x04u1,O\x85R.", "dtype 'u1,O', not of numbers"),
        (lists_in_lists(100), "dtype of a list, not of numbers"),
        (b"](" + b"]" * 2**18 + b"e.", "more than 65536 instructions"),
        (b"\x80\x04" + b"N\x94" * 2**18 + b".", "more than 65536 instructions"),
        (b"X" + struct.pack("<I", 2**25) + b"a" * 2**25 + b".", "more than 16 MiB"),
        (b"\x80\x04\x8c\x03a\nb\x8c\x01c\x93.", "asks for a b.c$"),  # in one line
    ],
)
def test_bombs_and_damage(contents, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(safe_pickle, "LARGEST_TEXTS", 2**24)
    monkeypatch.setattr(safe_pickle, "LARGEST_PICKLE", 2**24)
    if contents[:3] in (b"](]", b"\x80\x04N"):
        monkeypatch.setattr(safe_pickle, "MAX_OPCODES", 2**16)
    tracemalloc.start()
    try:
        if text is None:
            safe_pickle.loads(contents)
        else:
            with pytest.raises(UnsafePickleError, match=text):
                safe_pickle.loads(contents)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert not list(tmp_path.iterdir())


def test_python_2_texts_are_bytes_of_arrays():
    """As in the published Frey Faces: protocol 0, the bytes of the array in a text."""
    contents = (
        b"(lp0\ncnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntS'b'\ntRp3\n"
        b"(I1\n(I1\nI2\ntcnumpy\ndtype\np4\n(S'u1'\nI0\nI1\ntRp5\n(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x07\\xff'\ntba."
    )
    np.testing.assert_array_equal(safe_pickle.loads(contents)[0], np.array([[7, 255]], np.uint8))

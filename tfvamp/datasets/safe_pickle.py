"""Reads pickled NumPy arrays without running what a pickle asks for.

A pickle is a program. Here it may only make numbers, texts, bytes, lists, tuples, dictionaries, and
arrays of numbers in any shape. Reading ends at every other name that it calls for, and at every
opcode that could build something else or ask for memory that the file does not fill. It also ends
at what could expand a small file into a large object: one text turned into bytes over and over, or
tuples in tuples, as deep as the file is long, hashed as the key of a dictionary.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from typing import Any, ClassVar

import numpy as np

from tfvamp.files import printable

MAX_RANK = 4
MAX_KEYS = 16  # of a dictionary: the largest here has three
LARGEST_PICKLE = 2**27  # bytes; the largest published one has 68 million
LARGEST_TEXTS = LARGEST_PICKLE  # bytes made from texts
MAX_OPCODES = 2**21  # each opcode may make an object; 10,800 arrays take half a million
NUMBERS = re.compile(r"[<>|=]?[buif]\d{1,2}")  # codes of one number, not of a record of several
OPCODES = [
    "PROTO",
    "FRAME",
    "STOP",
    "MARK",
    "POP",
    "POP_MARK",
    "DUP",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "INT",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG",
    "LONG1",
    "LONG4",
    "FLOAT",
    "BINFLOAT",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "UNICODE",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "EMPTY_LIST",
    "LIST",
    "APPEND",
    "APPENDS",
    "EMPTY_TUPLE",
    "TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "EMPTY_DICT",
    "GET",
    "BINGET",
    "LONG_BINGET",
    "PUT",
    "BINPUT",
    "LONG_BINPUT",
    "MEMOIZE",
    "GLOBAL",
    "STACK_GLOBAL",
    "REDUCE",
]


class UnsafePickleError(Exception):
    """The pickle asks for something other than an array of numbers or a plain container."""


def loads(contents: bytes) -> Any:
    """Returns the pickled object: plain containers, numbers, texts, and `numpy` arrays of numbers.

    Raises:
      UnsafePickleError: the pickle asks for anything else, or is damaged.
    """
    if len(contents) > LARGEST_PICKLE:
        raise UnsafePickleError(f"it has more than {LARGEST_PICKLE // 2**20} MiB")
    try:
        return _plain(_Unpickler(io.BytesIO(contents), encoding="latin1").load())
    except UnsafePickleError:
        raise
    except Exception as error:  # damaged bytes may lead to any error
        raise UnsafePickleError(f"it is damaged ({type(error).__name__})") from error


class _Dtype:
    """Stands in for `numpy.dtype`: one of numbers, or none."""

    def __init__(self, code, align=False, copy=False):
        if not isinstance(code, str) or not NUMBERS.fullmatch(code):
            shown = repr(code[:40]) if isinstance(code, str) else f"of a {type(code).__name__}"
            raise UnsafePickleError(f"it holds an array of dtype {shown}, not of numbers")
        self.dtype = np.dtype(code)

    def set_state(self, state, to_bytes):
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for an array that is being built; `value` is None until its state comes."""

    value: np.ndarray | None = None

    def set_state(self, state, to_bytes):
        _, shape, dtype, fortran, contents = state
        if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple) or len(shape) > MAX_RANK:
            raise UnsafePickleError("it holds an array whose dtype or shape cannot be read")
        if isinstance(contents, str):  # written by Python 2
            contents = to_bytes(contents)
        if not isinstance(contents, bytes):
            raise UnsafePickleError("it holds an array of objects")
        if any(type(size) is not int or size < 0 for size in shape):
            raise UnsafePickleError("it holds an array of shape that no array has")
        if len(contents) != math.prod(shape) * dtype.dtype.itemsize:
            raise UnsafePickleError(f"it holds an array of shape {shape} with {len(contents)} bytes")
        self.value = np.frombuffer(contents, dtype.dtype).reshape(shape, order="F" if fortran else "C")


class _NdArray:
    """Stands in for the class `numpy.ndarray`, which is named but never called."""

    def __init__(self, *args):
        raise UnsafePickleError("it calls numpy.ndarray")


def _reconstruct(kind, shape, code) -> _Array:
    if kind is not _NdArray:
        raise UnsafePickleError("it reconstructs what is not a numpy.ndarray")
    return _Array()


_NAMES = {
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


def _counted(load):
    """Returns the method of an opcode, which works as long as there are not too many opcodes."""

    def load_one(self):
        self.opcodes += 1
        if self.opcodes > MAX_OPCODES:
            raise UnsafePickleError(f"it has more than {MAX_OPCODES} instructions")
        load(self)

    return load_one


class _Unpickler(pickle._Unpickler):  # the one in C trusts sizes that a file states
    dispatch: ClassVar[dict] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in OPCODES
    }
    stack: list
    append: Any
    pop_mark: Any
    opcodes = 0  # number of opcodes so far
    texts = 0  # bytes made from texts so far

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):
            return self.to_bytes
        if (module, name) not in _NAMES:
            shown = ".".join(part[:60] if isinstance(part, str) else "?" for part in (module, name))
            raise UnsafePickleError(f"it asks for {printable(shown)}")
        return _NAMES[module, name]

    def to_bytes(self, text, encoding="latin1") -> bytes:
        """Returns `text.encode("latin1")`, as long as all texts together are no larger than a file may be."""
        if encoding != "latin1" or not isinstance(text, str):
            raise UnsafePickleError("it encodes other than latin1")
        self.texts += len(text)
        if self.texts > LARGEST_TEXTS:
            raise UnsafePickleError("it turns more text into bytes than a file holds")
        return text.encode("latin1")

    def load_build(self):
        state, instance = self.stack.pop(), self.stack[-1]
        if not isinstance(instance, _Array | _Dtype):
            raise UnsafePickleError("it sets the state of what is neither an array nor a dtype")
        instance.set_state(state, self.to_bytes)

    def load_dict(self):
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def load_setitem(self):
        items = self.stack[-2:]
        del self.stack[-2:]
        self._set(items)

    def load_setitems(self):
        self._set(self.pop_mark())

    def _set(self, items: list) -> None:
        """Puts keys and values in turn into the dictionary on the stack; only texts are hashed."""
        into, keys = self.stack[-1], items[::2]
        if type(into) is not dict or not all(isinstance(key, str) for key in keys):
            raise UnsafePickleError("it holds a dictionary whose keys are no texts")
        if len(into) + len(keys) > MAX_KEYS:
            raise UnsafePickleError(f"it holds a dictionary of more than {MAX_KEYS} entries")
        into.update(zip(keys, items[1::2], strict=True))

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch = {code: _counted(method) for code, method in dispatch.items()}


def _plain(value):
    """Returns the value, or the values of a list or dictionary, as arrays; data sets have no use for deeper ones."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, list | tuple):
        return [item.value if isinstance(item, _Array) else item for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) if not isinstance(item, dict) else None for key, item in value.items()}
    return value

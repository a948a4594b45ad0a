"""TensorFlow functions that are compiled by XLA if that works."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf


def traced(step: Callable, jit: bool = False) -> Callable:
    """Returns a step as a TensorFlow function that belongs to one call, such as one evaluation of one model.

    TensorFlow counts traces by the code of a function, and warns when the same code is traced for
    the sixth time. `functools.partial` hides the code, so that evaluations of a model in a loop are
    counted one by one.

    Args:
      step: a function from tensors to tensors.
      jit: whether to compile it by XLA.
    """
    return tf.function(functools.partial(step), jit_compile=jit or None, autograph=False)


def compiled(step: Callable, jit: bool, say: Callable[[str], None]) -> Callable:
    """Returns the step as a TensorFlow function, with XLA if `jit`; if XLA fails, it says so and continues without.

    Args:
      step: a function from tensors to tensors.
      jit: whether to try XLA.
      say: a function that gets one line of text when XLA is given up.
    """
    functions = [traced(step, jit=True)] if jit else []
    functions.append(traced(step))
    untried = jit

    def run(*args):
        nonlocal untried
        try:
            result = functions[0](*args)
        except (tf.errors.CancelledError, tf.errors.ResourceExhaustedError):
            raise
        except tf.errors.OpError as error:
            if not untried:
                raise
            del functions[0]
            result = functions[0](*args)  # raises what is the step's own fault
            say(f"XLA cannot compile a step ({type(error).__name__}): going on without it, as with --no-jit")
        untried = False
        return result

    return run

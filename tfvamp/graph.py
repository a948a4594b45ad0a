"""TensorFlow functions that are compiled by XLA if that works."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def compiled(step: Callable, jit: bool, say: Callable[[str], None]) -> Callable:
    """Returns the step as a TensorFlow function, with XLA if `jit`; if XLA fails, it says so and continues without.

    Args:
      step: a function from tensors to tensors.
      jit: whether to try XLA.
      say: a function that gets one line of text when XLA is given up.
    """
    functions = [tf.function(step, jit_compile=True, autograph=False)] if jit else []
    functions.append(tf.function(step, autograph=False))
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

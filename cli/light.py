"""The parts of tfvamp that need only the standard library, without tfvamp/__init__.py, which imports TensorFlow."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types

NAME = "tfvamp_cli.of_tfvamp"  # a second name for the package, whose __init__.py is not run


def _package() -> types.ModuleType:
    spec = importlib.util.find_spec("tfvamp")
    assert spec is not None and spec.submodule_search_locations is not None  # both are installed together
    package = types.ModuleType(NAME)
    package.__path__ = list(spec.submodule_search_locations)
    return package


if NAME not in sys.modules:
    sys.modules[NAME] = _package()
backend = importlib.import_module(f"{NAME}.backend")
config = importlib.import_module(f"{NAME}.config")
errors = importlib.import_module(f"{NAME}.errors")
files = importlib.import_module(f"{NAME}.files")
paper = importlib.import_module(f"{NAME}.paper")

"""The order of the rooms: an import goes to an earlier room or stays in its own."""

import ast
import pathlib

import tfvamp

ROOT = pathlib.Path(tfvamp.__file__).parents[1]
ROOMS = (
    "errors", "backend", "files", "catalog", "config", "paper", "memory", "arrays", "seeds", "graph", "blocks", "plots",
    "devices", "datasets", "layers", "networks", "objectives", "optimizers", "losses", "models", "evaluation", "runs",
    "reports", "training", "sweeps", "reproducing", "callbacks", "describe", "export",
)  # fmt: skip
LIGHT = {
    "errors",
    "backend",
    "files",
    "catalog",
    "config",
    "paper",
}  # the standard library alone: the command line starts with them


def imports(path: pathlib.Path) -> set[str]:
    """The rooms of tfvamp, and the other packages, that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = f"tfvamp.{node.module}" if node.level else node.module
            found |= {f"{module}.{name.name}" for name in node.names}
    return found


def room_of(name: str) -> str | None:
    """The room that an imported name of tfvamp lies in."""
    parts = name.split(".")
    return parts[1] if parts[0] == "tfvamp" and len(parts) > 1 else None


def test_every_file_is_in_a_room():
    names = {path.stem for path in (ROOT / "tfvamp").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert names - {"py"} == set(ROOMS)


def test_no_import_runs_against_the_order():
    for path in (ROOT / "tfvamp").rglob("*.py"):
        own = path.relative_to(ROOT / "tfvamp").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in imports(path):
            room = room_of(name)
            if room is not None:
                assert ROOMS.index(room) <= ROOMS.index(own), (path, name)
            assert not name.startswith("tfvamp_cli"), (path, name)


def test_the_ground_floor_needs_the_standard_library_alone():
    import sys

    for room in LIGHT:
        for name in imports(ROOT / "tfvamp" / f"{room}.py"):
            package = name.split(".")[0]
            assert package in sys.stdlib_module_names or room_of(name) in LIGHT, (room, name)


def test_commands_import_tfvamp_only_when_they_run():
    for path in (ROOT / "cli").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "tfvamp", path


def test_what_serves_needs_no_tfvamp():
    """The process that serves an export loads TensorFlow alone."""
    for path in (ROOT / "cli" / "serving").glob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] not in ("tfvamp", "keras", "tensorflow_probability"), (path, name)


def test_nothing_decides_by_the_name_or_the_type_of_a_prior():
    """It asks the prior, or `config.PRIORS`, which says what each one is."""
    for path in [*(ROOT / "tfvamp").rglob("*.py"), *(ROOT / "cli").glob("*.py")]:
        if path.name in ("priors.py", "choices.py", "config.py"):
            continue
        text = path.read_text()
        for name in ('"standard"', '"vamp', "VampPriorLayer)", "StandardNormalPriorLayer)"):
            lines = [
                line for line in text.splitlines() if name in line and ("==" in line or "isinstance" in line)
            ]
            assert not lines, (path, lines)
        assert "prior.startswith" not in text, path

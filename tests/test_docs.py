"""What README and docs say works: commands are run or parsed, Python is run, links lead somewhere."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from tfvamp.datasets.catalog import CATALOG
from tfvamp_cli.main import main

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(page, language=""):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page):
    lines = [line.strip() for line in page.read_text().splitlines()]
    return [shlex.split(line, comments=True) for line in lines if re.match(r"tfvamp [a-z]", line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page):
    for _, name, *arguments in commands(page):
        command = main.get_command(None, name)
        assert command is not None, name
        command.make_context(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_two_commands_of_the_readme_are_those_of_ci():
    makefile = (ROOT / "Makefile").read_text()
    assert "\nmake demo " in (ROOT / "README.md").read_text() and "\ndemo:" in makefile
    assert (
        "\nmake test " in (ROOT / "README.md").read_text()
        and "make test\n" in (ROOT / ".ci" / "run").read_text()
    )


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path, data_dir):
    quick = ["--limit", "120", "--epochs", "2", "--warmup", "1", "--data-dir", data_dir]
    for program, *arguments in commands(ROOT / "README.md"):
        if {"caltech101", "frey_faces", "--resume"} & set(arguments):
            continue
        more = quick if arguments[0] == "train" else []
        result = subprocess.run(
            [sys.executable, "-m", "tfvamp_cli.main", *arguments, *more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, (program, arguments, result.stderr)
    assert (tmp_path / "samples.png").is_file() and (tmp_path / "z.npz").is_file()
    assert len(list((tmp_path / "runs" / "first" / "figures").glob("*.png"))) == 6


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_the_python_of_the_readme_runs(number, tmp_path, data_dir):
    code = blocks(ROOT / "README.md", "python")[number]
    code = code.replace("epochs=20, warmup=10", "epochs=2, warmup=1, limit=120")
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"TFDS_DATA_DIR": data_dir},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]


KERAS_PAGE = ROOT / "docs" / "keras.md"


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(blocks(KERAS_PAGE, "python"))))
def test_the_python_of_the_keras_page_runs(number, tmp_path):
    code = blocks(KERAS_PAGE, "python")[number]
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_python_of_the_page_on_data_sets_runs():
    (code,) = blocks(ROOT / "docs" / "datasets.md", "python")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == "(12, 10, 1) logistic"


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_the_keras_example_runs(prior, tmp_path, data_dir):
    quick = [
        "--limit",
        "100",
        "--epochs",
        "2",
        "--warmup",
        "1",
        "--num-components",
        "5",
        "--latent-dims",
        "4",
    ]
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / "keras_vae.py", "--prior", prior, *quick, "--save", "vae.keras"],
        cwd=tmp_path,
        env=os.environ | {"TFDS_DATA_DIR": data_dir},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    outcome = json.loads(result.stdout.splitlines()[-1])
    # 784 pixels at log 2 each are -543: summed, not averaged, and better than a coin.
    assert outcome["prior"] == prior and -543.0 < outcome["test_elbo"] < -100.0
    assert (tmp_path / "vae.keras").is_file()


def test_nothing_speaks_of_a_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".json", ".yaml", "") and path.is_file():
            text = path.read_text()
            assert not re.search(r"(^|[^\w./])/(home|root|opt|tmp|Users)/\w", text), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_finished(page):
    assert "@@" not in page.read_text()


def test_the_table_of_data_sets_is_the_catalogues():
    rows = {}
    for line in (ROOT / "docs" / "datasets.md").read_text().splitlines():
        if line.startswith("| `") and line.count("|") == 9:
            name, _, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name.strip("`")] = cells
    assert set(rows) == set(CATALOG)
    for name, (sizes, shape, pixels, likelihood, components, pseudo_inputs) in rows.items():
        spec = CATALOG[name]
        assert sizes == " / ".join(map(str, spec.sizes)) and shape == "x".join(map(str, spec.shape))
        assert likelihood == {"bernoulli": "Bernoulli", "logistic": "discretised logistic"}[spec.likelihood]
        assert components == str(spec.num_components)
        assert ("dynamically" in pixels) == (spec.binarization == "dynamic")
        assert pseudo_inputs == f"N({spec.pseudo_input_mean:g}, {spec.pseudo_input_std:g})"

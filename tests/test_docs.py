"""What README and docs say works: commands are run or parsed, Python is run, links lead somewhere."""

import doctest
import importlib
import inspect
import itertools
import json
import math
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from click.testing import CliRunner

import tfvamp
from tests.small import small_vae
from tfvamp.catalog import CATALOG
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


# Runs each text of a list as a program of its own, in the process that all share; prints how each ended.
IN_TURN = """
import contextlib, io, json, traceback
import tensorflow_datasets as tfds
tfds.core.constants.DATA_DIR = data_dir
endings = []
for code in programs:
    written, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(written):
            exec(compile(code, "program", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        error = f"exit code {end.code}" if end.code else None
    except BaseException:
        error = traceback.format_exc()
    endings.append([error, written.getvalue()])
print()
print(json.dumps(endings))
"""


def in_turn(storm, programs: list[str], folder: pathlib.Path, data_dir: str) -> list[list[str]]:
    """The error of each program, None without one, and what it printed; prepared data are in `data_dir` by default."""
    given = f"programs = {programs!r}\ndata_dir = {data_dir!r}\n"
    answer = storm(python=given + IN_TURN, folder=folder)  # op by op: graphs are compiled in other tests
    assert answer["status"] == 0, answer["stderr"][-2000:]
    endings = json.loads(answer["stdout"].splitlines()[-1])
    for ending in endings:
        if ending[0]:
            ending[0] += answer["stderr"][-2000:]
    return endings


@pytest.mark.slow
def test_the_commands_of_the_readme_run(storm, tmp_path, data_dir):
    quick = {
        "limit": 120, "epochs": 2, "warmup": 1, "components": 20, "hidden-units": 16, "latent-dims": 4, "data-dir": data_dir
    }  # fmt: skip
    words = [word for name, value in quick.items() for word in (f"--{name}", str(value))]
    few = ["--limit", "6", "--refine-steps", "3"]
    quick_for = {"train": words, "evaluate": few, "diagnose": [*few, "--samples", "10"]}
    lines = [
        [*arguments, *quick_for.get(arguments[0], [])]
        for _, *arguments in commands(ROOT / "README.md")
        if not {"caltech101", "folder:pictures", "serve"} & set(arguments)  # test_serving.py serves
    ]
    programs = [f"from tfvamp_cli.main import main\nmain({arguments!r})" for arguments in lines]
    for arguments, (error, _) in zip(lines, in_turn(storm, programs, tmp_path, data_dir), strict=True):
        assert error is None, (arguments, error)
    assert (tmp_path / "samples.png").is_file() and (tmp_path / "z.npz").is_file()
    assert len(list((tmp_path / "runs" / "first" / "figures").glob("[!d]*.png"))) == 9
    assert (tmp_path / "runs" / "first" / "diagnosis.json").is_file()


def example(name: str, words: str) -> str:
    """A program that runs a file of examples/ with these arguments."""
    path = str(ROOT / "examples" / f"{name}.py")
    arguments = [path, *words.split()]
    return f"import runpy, sys\nsys.argv = {arguments!r}\nrunpy.run_path({path!r}, run_name='__main__')"


RESULTS = ROOT / "docs" / "results"
QUICK = "--limit 100 --epochs 2 --warmup 1"
EXAMPLES = {
    **{
        f"example {prior}": example(
            "keras_vae", f"{QUICK} --num-components 5 --latent-dims 4 --prior {prior} --save {prior}.keras"
        )
        for prior in ("standard", "vamp")
    },
    "conditional": example(
        "conditional_vae", "--limit 200 --epochs 1 --warmup 1 --num-components 60 --latent-dims 2"
    ),
    "compare_priors": example(
        "compare_priors",
        "--limit 20 --epochs 1 --warmup 1 --priors vamp --samples 5 --refine-steps 3 --components 5 --picture maps.png",
    ),
    "pseudo_inputs": example("pseudo_inputs", f"{QUICK} --components 12 --picture inputs.png"),
    "table_vae": example("table_vae", "--epochs 2 --picture table.png"),
    "encoder_on_samples": example(  # of the run that the README's Python makes
        "encoder_on_samples", "runs/python --epochs 2 --limit 40 --samples 5 --save further.keras"
    ),
    "two_estimates": example(
        "two_estimates",
        " ".join(str(RESULTS / f"caltech101-vae-{prior}-seed0.json") for prior in ("vamp", "standard"))
        + " --picture estimates.png",
    ),
}
# What each program of examples/ prints, and the pages of the tutorials show.
TUTORIALS = {"compare_priors": "priors", "pseudo_inputs": "pseudo-inputs", "table_vae": "table"}
KERAS_PAGE, DATA_PAGE = ROOT / "docs" / "keras.md", ROOT / "docs" / "datasets.md"
ELSEWHERE = {"keras", "export", "run_folder"}  # block by block; in test_export.py; needs a run
JOINED = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.stem not in ELSEWHERE]


def quick(code: str) -> str:
    """The code of a page with fewer epochs and images."""
    return (
        code.replace("epochs=20, warmup=10", "epochs=2, warmup=1, limit=120")
        .replace("num_samples=100, limit=100", "num_samples=5, limit=5, refine_steps=3")
        .replace("num_samples=50, limit=20", "num_samples=5, limit=5, refine_steps=3")
    )


PROGRAMS = {
    **{f"README {number}": quick(code) for number, code in enumerate(blocks(ROOT / "README.md", "python"))},
    **{f"keras {number}": code for number, code in enumerate(blocks(KERAS_PAGE, "python"))},
    **{page.stem: quick("\n".join(code)) for page in JOINED if (code := blocks(page, "python"))},
    **EXAMPLES,
}


@pytest.fixture(scope="module")
def programs(storm, tmp_path_factory, data_dir):
    """All Python of the pages and the example, run: the folder, and how each ended."""
    folder = tmp_path_factory.mktemp("programs")
    return folder, dict(zip(PROGRAMS, in_turn(storm, [*PROGRAMS.values()], folder, data_dir), strict=True))


@pytest.mark.slow
@pytest.mark.xdist_group("programs")
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_python_of_the_pages_and_the_example_run(programs, name):
    folder, endings = programs
    error, written = endings[name]
    assert error is None, error
    if name == "datasets":
        assert written.strip() == "(12, 10, 1) logistic"
    if name == "conditional":
        assert json.loads(written.splitlines()[-1]).keys() == {"test_elbo", "agreement", "on_real_digits"}
    if name == "encoder_on_samples":
        model, run = (
            keras.saving.load_model(folder / "further.keras"),
            tfvamp.Run(folder / "runs" / "python").model(),
        )
        z = model.prior.sample(10, seed=0)
        np.testing.assert_allclose(model.prior.log_prob(z), run.prior.log_prob(z), rtol=1e-5)
        np.testing.assert_array_equal(model.decoder(z).mean(), run.decoder(z).mean())
        x = model.sample(5, seed=0, draw=True)
        assert np.any(model.encoder(x).loc != run.encoder(x).loc)
        outcome = json.loads(written.splitlines()[-1])
        assert outcome["difference"] == pytest.approx(outcome["after"] - outcome["before"], abs=1e-3)
    if name == "two_estimates":
        assert (folder / "estimates.png").is_file()
        assert json.loads(written)["VAE, standard"]["refined_difference"] == pytest.approx(-4.73, abs=0.005)
    if name in TUTORIALS:
        shown = json.loads((ROOT / "docs" / "results" / f"tutorial-{TUTORIALS[name]}.json").read_text())
        assert json.loads(written[written.index("{") :]).keys() <= shown.keys()
    if name.startswith("example"):
        prior, outcome = name.split()[1], json.loads(written.splitlines()[-1])
        # 784 pixels at log 2 each are -543: summed, not averaged, and better than a coin.
        assert outcome["prior"] == prior and -543.0 < outcome["test_elbo"] < -100.0
        assert (folder / f"{prior}.keras").is_file()


@pytest.mark.parametrize("prior", ["standard", "mog", "vamp", "flow"])
def test_the_encoder_is_trained_alone_under_the_same_prior(prior):
    program = runpy.run_path(str(ROOT / "examples" / "encoder_on_samples.py"))
    model = small_vae(prior)
    for variable in model.trainable_variables:
        variable.assign_add(np.random.default_rng(1).normal(0.0, 0.05, variable.shape))
    copy = program["with_fixed_prior"](model)
    z = model.prior.sample(10, seed=0)
    np.testing.assert_allclose(copy.prior.log_prob(z), model.prior.log_prob(z), rtol=1e-5)
    encoder = {id(v) for network in copy.networks("encoder") for v in network.trainable_variables}
    assert {id(v) for v in copy.trainable_variables} == encoder


def test_a_flow_that_follows_the_encoder_is_refused():
    program = runpy.run_path(str(ROOT / "examples" / "encoder_on_samples.py"))
    with pytest.raises(SystemExit, match="must be a mixture"):
        program["with_fixed_prior"](small_vae("flow", flow_base="vamp"))


def test_the_programs_of_the_pages_are_all_there():
    assert {
        "datasets",
        "evaluation",
        "index",
        "networks",
        "quickstart",
        "training",
        "tutorial-keras",
    } <= PROGRAMS.keys()
    assert len(blocks(ROOT / "README.md", "python")) == 2 and len(blocks(DATA_PAGE, "python")) == 1
    assert len(blocks(KERAS_PAGE, "python")) >= 6


SOURCES = {
    str(path.relative_to(ROOT)): path
    for path in sorted((ROOT / "tfvamp").rglob("*.py"))
    if ">>> " in path.read_text()
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_examples_of_docstrings_run(source, request, eager, tmp_path, monkeypatch, data_dir):
    """With what `from tfvamp.layers import *` gives, the names of the module, and the usual short names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", data_dir)
    if "runs/first" in SOURCES[source].read_text():
        shutil.copytree(request.getfixturevalue("trained"), tmp_path / "runs" / "first")
    module = importlib.import_module(source.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    usual = {"tfvamp": tfvamp, "keras": keras, "np": np, "tf": tf}
    names = vars(tfvamp.layers) | usual | vars(module)
    for test in doctest.DocTestFinder().find(module, globs=names):
        written: list[str] = []
        doctest.DocTestRunner().run(test, out=written.append)
        assert not written, "".join(written)


def documented(kind: str) -> list[str]:
    """The full names of what the pages of the reference show."""
    found, current = [], ""
    for page in (ROOT / "docs").glob("api-*.md"):
        for module, name in re.findall(rf"currentmodule:: (\S+)|auto{kind}:: (\S+)", page.read_text()):
            current = module or current
            found += [f"{current}.{name}"] if name else []
    return found


def test_every_public_class_is_in_the_reference_with_an_example():
    classes = documented("class")
    for name in classes:
        module, _, attribute = name.rpartition(".")
        assert ">>> " in (getattr(importlib.import_module(module), attribute).__doc__ or ""), name
    for module in (tfvamp, tfvamp.layers, tfvamp.models, tfvamp.evaluation):
        for name in module.__all__:
            if inspect.isclass(getattr(module, name)) and not issubclass(getattr(module, name), Exception):
                assert f"{module.__name__}.{name}" in classes, name


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


def test_the_results_of_the_readme_are_those_of_the_page():
    """Those of `--preset best` are on the page of the study."""
    results, study = ((ROOT / "docs" / name).read_text() for name in ("results.md", "study.md"))
    text = re.search(r"## Results\n(.*?)## More", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    for kept, page, count in ((True, results, 8), (False, study, 2)):
        lines = "\n".join(line for line in text.splitlines() if line.startswith("|") == kept)
        numbers = re.findall(r"-\d+\.\d+", lines)
        assert len(numbers) == count and all(f"| {number} |" in page for number in numbers), numbers


def test_the_tables_of_the_results_are_those_of_the_archive(tmp_path):
    """`make results` writes the tables of the page again, because all its runs are archived."""
    page = tmp_path / "results.md"
    text = (ROOT / "docs" / "results.md").read_text()
    empty, count = re.subn(r"(<!-- (table .*) -->\n)(?:.*\n)*?(<!-- end of \2 -->)", r"\1\3", text)
    page.write_text(empty)
    sections = re.findall(r"\$\(REPRODUCE\) (--section .*)", (ROOT / "Makefile").read_text())
    where = ("--archive", str(RESULTS), "--run-root", str(tmp_path / "none"), "--output", str(page))
    for options in sections:
        words = (
            "reproduce",
            "table1",
            "--details",
            "--no-train",
            "--no-hours",
            *where,
            *shlex.split(options),
        )
        assert CliRunner().invoke(main, words).exit_code == 0
    assert page.read_text() == text != empty and len(sections) == count


def test_the_table_of_both_estimates_is_that_of_the_runs():
    """Differences from the estimates of each image."""
    page = (ROOT / "docs" / "evaluation.md").read_text()
    runs = {}
    for path in RESULTS.glob("caltech101-*-seed0.json"):
        model, prior = re.fullmatch(r"caltech101-(\w+)-(.+)-seed0", path.stem).groups()
        run = json.loads(path.read_text())
        if run["evaluation"]["proposal"] == "refined":  # those of Figure 2 are not
            runs[model, prior] = run
    for (model, prior), run in runs.items():
        assert run["prior"] == prior
        evaluation = run["evaluation"]
        encoder, refined = evaluation["encoder"]["log_likelihood"], evaluation["log_likelihood"]
        cells = [f"{model.upper()}, {prior}", f"{encoder:.2f}", f"{refined:.2f}", f"{refined - encoder:.2f}"]
        for name in ("encoder_log_likelihood", "log_likelihood"):
            difference = np.array(runs[model, "vamp"]["images"][name]) - run["images"][name]
            error = difference.std(ddof=1) / math.sqrt(len(difference))
            cells.append(f"{difference.mean():.2f} +- {error:.2f}" if prior != "vamp" else "")
        assert f"| {' | '.join(cells)} |" in page, cells
    table = page[page.index("paired image by image:") : page.index("Here the customary")]
    assert table.count("\n| ") == 1 + len(runs) == 8


def test_the_elbos_by_number_of_components_are_those_of_the_runs():
    def elbo(prior, count):
        name = f"caltech101-hvae-{prior}{'' if count == 500 else f'-k{count}'}-seed0.json"
        evaluation = json.loads((RESULTS / name).read_text())["evaluation"]
        return f"{evaluation.get('encoder', evaluation)['elbo']:.2f}"

    page = (ROOT / "docs" / "results.md").read_text()
    for count in (1, 10, 100, 500):
        assert f"| {count} | {elbo('mog', count)} | {elbo('vamp', count)} |" in page
    assert f"With the\nstandard prior it is {elbo('standard', 500)}." in page


def test_what_is_said_of_static_mnist_is_of_its_runs():
    gains, page = {}, (ROOT / "docs" / "results.md").read_text().replace("\n", " ")
    for prior, name, paper in (("standard", "standard", -88.56), ("vamp", "VampPrior", -85.57)):
        evaluation = json.loads((RESULTS / f"static_mnist-vae-{prior}-seed0.json").read_text())["evaluation"]
        encoder = evaluation["encoder"]["log_likelihood"]
        gains[prior] = evaluation["log_likelihood"] - encoder
        assert f"| VAE {name} {encoder:.2f} | {paper} |" in (ROOT / "docs" / "reproducing.md").read_text()
    assert f"are {gains['standard']:.2f} (standard) and {gains['vamp']:.2f} nats (VampPrior) higher" in page


def test_the_tables_of_frey_faces_are_those_of_the_runs():
    page = (ROOT / "docs" / "evaluation.md").read_text()
    diagnosed = json.loads((RESULTS / "diagnosed.json").read_text())
    paths = sorted(RESULTS.glob("frey_faces-*-seed0.json"))
    assert len(paths) == len(diagnosed) == 4
    for path in paths:
        run = json.loads(path.read_text())
        name = f"{run['model'].upper()}, {run['prior']}"
        refined, encoder = run["evaluation"], run["evaluation"]["encoder"]
        cells = [name]
        for way, digits in ((encoder, 2), (refined, 3)):
            few, more, most = (
                f"{point['mean']:.{d}f}" for point, d in zip(way["curve"], (2, 2, digits), strict=True)
            )
            error = f"{way['monte_carlo_error']:.{digits}f}"
            size = f"{way['effective_sample_size']['median']:.0f}"
            cells += [f"{way['elbo']:.2f}", f"{few} / {more} / {most} +- {error}", size]
        cells.append(f"{encoder['bits_per_dim']:.3f} / {refined['bits_per_dim']:.3f}")
        assert f"| {' | '.join(cells)} |" in page, cells
        fit = diagnosed[path.stem.removesuffix("-seed0")]["fit"]
        pairs = [
            f"{fit['train'][key]:.1f} / {fit['test'][key]:.1f}"
            for key in ("elbo", "refined_log_likelihood", "amortisation_gap")
        ]
        gap = f"{fit['gap']:.1f} +- {fit['gap_error']:.1f}"
        cells = [f"Frey, {name}", *pairs, gap, f"{fit['gap_of_encoder']:.1f}", f"{fit['gap_of_decoder']:.1f}"]
        assert f"| {' | '.join(cells)} |" in page, cells


def test_the_table_of_annealed_estimates_is_that_of_the_runs():
    page = (ROOT / "docs" / "evaluation.md").read_text()
    rows = json.loads((RESULTS / "annealed.json").read_text())
    for row in rows:
        archived = json.loads(
            (RESULTS / f"{row['dataset']}-{row['model']}-{row['prior']}-seed0.json").read_text()
        )
        annealed = np.array(row["log_likelihood"])
        refined = np.array(archived["images"]["log_likelihood"])[: len(annealed)]
        encoder = np.mean(archived["images"]["encoder_log_likelihood"][: len(annealed)])
        error = (annealed - refined).std(ddof=1) / math.sqrt(len(annealed))
        assert len(annealed) == 200
        if row["dataset"] == "caltech101":
            assert abs(annealed.mean() - refined.mean()) < 0.5
        cells = [
            f"{row['model'].upper()}, {row['prior']}",
            f"{encoder:.2f}",
            f"{refined.mean():.2f}",
            f"{annealed.mean():.2f} +- {row['monte_carlo_error']:.2f}",
            f"{(annealed - refined).mean():.2f} +- {error:.2f}",
            f"{row['gap']:.2f} +- {row['gap_error']:.2f}"
            + (f" (median {row['gap_median']:.2f})" if "gap_median" in row else ""),
        ]
        assert f"| {' | '.join(cells)} |" in page, cells
    assert [row["dataset"] for row in rows] == ["caltech101"] * 7 + ["frey_faces"] * 4


def test_the_tables_of_the_study_are_those_of_its_runs():
    page = (ROOT / "docs" / "study.md").read_text()
    rows = json.loads((ROOT / "docs" / "results" / "study.json").read_text())
    cases = tomllib.loads((ROOT / "examples" / "study.toml").read_text())["cases"]
    assert len(rows) == page.count("| `vae-") + page.count("| `hvae-")
    for row in rows:
        case = re.search("case=(.*),seed=0", row["run"]).group(1)
        assert {name: row[name] for name in cases[case]} == cases[case], case
        cells = [f"{row['bound']:.2f}", f"{row['trained_epochs']} ({row['best_epoch']})"]
        cells += [f"{row[name]:.2f}" if name in row else "" for name in ("encoder", "log_likelihood")]
        for name in ("encoder_difference", "difference"):
            cells.append(f"{row[name]:.2f} +- {row[f'{name}_error']:.2f}" if name in row else "")
        line = re.search(rf"^\| `{case}` \|.*$", page, re.MULTILINE).group()
        assert line.endswith(f"| {' | '.join(cells)} |"), case
        if "annealed" in row:
            assert f"it gives {row['annealed']:.2f} +- {row['annealed_error']:.2f}" in page
            paired = f"{row['annealed_difference']:.2f} +- {row['annealed_difference_error']:.2f}"
            assert f"which is {paired} above the refined estimate" in page


def test_what_noise_costs_is_said_of_its_runs():
    rows = json.loads((RESULTS / "study.json").read_text())
    noisy, clean = (
        next(row for row in rows if f"case={case}," in row["run"])
        for case in ("hvae-four-layers", "hvae-four-layers-no-noise")
    )
    page = " ".join((ROOT / "docs" / "study.md").read_text().split())
    assert f"four layers is {noisy['bound'] - clean['bound']:.1f} nats lower" in page
    assert f"the same log-likelihood ({clean['encoder']:.2f})" in page
    better = clean["log_likelihood"] - noisy["log_likelihood"]
    paired = f"{clean['difference']:.2f} +- {clean['difference_error']:.2f}"
    assert f"the model is {better:.2f} nats better than with noise, and {paired} better than our run" in page


def test_the_table_of_the_encoder_alone_is_that_of_its_run():
    page = (ROOT / "docs" / "study.md").read_text()
    for row in json.loads((RESULTS / "encoder_on_samples.json").read_text()):
        assert f"\n    {row['command']}\n" in page
        model, case = re.search("case=(h?vae)-(.*),seed=0", row["run"]).groups()
        difference = f"{row['difference']:.2f} +- {row['difference_error']:.2f}"
        cells = [
            row["objective"],
            str(row["epochs"]),
            f"{row['before']:.2f}",
            f"{row['after']:.2f}",
            difference,
        ]
        assert f"| {model.upper()}, `{case}` | {' | '.join(cells)} |" in page
    last = row
    assert f"rises from {last['before_5000']:.2f} to {last['after_5000']:.2f}" in page
    assert f"({last['difference_5000']:.2f} +- {last['difference_error_5000']:.2f})" in page
    for row in json.loads((RESULTS / "encoder_objectives.json").read_text()):
        cells = [row["objective"], *(f"{row[name]:.2f}" for name in ("elbo", "s10", "s100", "s1000"))]
        assert f"\n| {' | '.join(cells)} |\n" in page
    assert f"{last['refined_above']:.1f} nats below the refined one" in page
    search = json.loads((RESULTS / "encoder_search.json").read_text())
    assert f"without dropping pixels of generated images, gives {search['further']['test_5000']:.2f}." in page
    assert f"which was {search['before']:.2f} before" in page
    for row in search["after"]:
        cells = [
            row["generated"],
            "yes" if row["dropped"] else "no",
            f"{row['learning_rate']:g}",
            row["epochs"],
        ]
        assert f"\n| {' | '.join(map(str, cells))} | {row['validation_bound']:.2f} |\n" in page


def test_the_table_of_the_sweep_is_that_of_its_runs():
    page = (ROOT / "docs" / "study.md").read_text()
    rows = json.loads((ROOT / "docs" / "results" / "rates.json").read_text())
    vary = tomllib.loads((ROOT / "examples" / "rates.toml").read_text())["vary"]
    seen = {(row["learning_rate"], row["components"], row["average"]) for row in rows}
    assert seen == set(itertools.product(vary["learning_rate"], vary["components"], vary["average"]))
    for row in rows:
        assert row["runs"] == len(vary["seed"])
        cells = [
            f"{row['learning_rate']:g}",
            row["components"],
            row["average"] or "no",
            row["runs"],
            f"{row['bound']:.2f} ({row['bound_spread']:.2f})",
            f"{row['best_epoch']:.0f}",
            f"{row['log_likelihood']:.2f}",
            f"{row['standard_error']:.2f}",
        ]
        if row["difference"] is not None:
            cells.append(f"{row['difference']:.2f} +- {row['difference_error']:.2f}")
        assert f"| {' | '.join(map(str, cells))} |" in page


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

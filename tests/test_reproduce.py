"""tfvamp reproduce: published numbers, cells and how far they are, verdicts, tables, figures."""

import csv
import dataclasses
import io
import json
import math
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

import tfvamp
from tests import made
from tests.small import eagerly
from tests.test_sweeps import Here
from tfvamp import paper, plots, reproducing
from tfvamp.config import PRIORS, TrainConfig
from tfvamp.errors import RunError, UsageError
from tfvamp.layers.gaussian import DiagonalGaussian
from tfvamp.reproducing import gradients, hours, verdicts
from tfvamp.reproducing.cells import Cell, Look, cells_of, command_of, look, name_of, planned_runs
from tfvamp.reproducing.results import Result
from tfvamp.runs import Run
from tfvamp.sweeps import runner
from tfvamp_cli.main import main

pytestmark = pytest.mark.xdist_group("reproduce")  # they share runs

SMALL = {
    "epochs": 2, "warmup": 0, "hidden_units": 4, "latent_dims": 2, "jit": False, "batch_size": 6, "patience": 1000,
}  # fmt: skip
VAE = ("caltech101", "vae")


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """Where tiny Caltech images are."""
    folder = tmp_path_factory.mktemp("caltech")
    made.make("caltech101", folder / "raw")
    return {"data_dir": str(folder / "data"), "raw_dir": str(folder / "raw")}


@pytest.fixture(scope="module")
def root(places, tmp_path_factory):
    """A finished run with the standard prior, one with a VampPrior that was stopped after an epoch, a damaged MoG."""
    folder = tmp_path_factory.mktemp("runs") / "a_b&c"
    small = TrainConfig(dataset="caltech101", prior="standard", **SMALL, **places)
    with eagerly():
        tfvamp.train(small, folder / "caltech101-vae-standard-seed0")
        tfvamp.evaluate(folder / "caltech101-vae-standard-seed0", 5, refine_steps=2)
        stopped = dataclasses.replace(small, prior="vamp", epochs=1)
        tfvamp.train(stopped, folder / "caltech101-vae-vamp-seed0")
    (folder / "caltech101-vae-mog-seed0").mkdir()
    (folder / "caltech101-vae-mog-seed0" / "config.json").write_text("{")
    return folder


@pytest.fixture
def copy(root, tmp_path):
    return shutil.copytree(root, tmp_path / "runs")


@pytest.fixture
def config(tmp_path) -> str:
    path = tmp_path / "small.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in SMALL.items()))
    return str(path)


def reproduce(*arguments):
    return CliRunner().invoke(main, ["--quiet", "reproduce", *map(str, arguments)])


def table(root, places, config, *more):
    """The first table with the VAEs of Caltech, of each state one."""
    where = ["--data-dir", places["data_dir"], "--raw-dir", places["raw_dir"], "--config", config]
    chosen = ["--datasets", "caltech101", "--models", "vae", "--priors", "standard,vamp,mog,vamp-data"]
    return reproduce(
        "table1", *chosen, "--no-train", "--no-hours", "--samples", 5, "--run-root", root, *where, *more
    )


def result(value: float = -100.0, **more) -> Result:
    numbers = {
        "encoder": value, "standard_error": 0.3, "monte_carlo_error": 0.04, "refined": value + 5, "refined_standard_error": 0.2,
        "refined_monte_carlo_error": 0.01, "samples": 5000, "images": 10000, "elbo": value - 3, "kl": 20.0,
        "amortisation_gap": 2.0, "active_units": {"z2": 20, "z1": 30}, "kls": {"z2": 8.0, "z1": 12.0}, "epochs": 300,
        "best_epoch": 250, "validation_elbo": value - 2, "minutes": 10.0,
        "of_images": {"encoder": np.linspace(value - 9, value + 9, 40)},
    }  # fmt: skip
    return Result(**(numbers | more))


def cell(point: paper.Point, *results: Result | None) -> Cell:
    """A cell with made-up results; None for a run that is at epoch 7."""
    runs = planned_runs(
        point, tfvamp.files.expanded("runs/none"), len(results), paper.evaluation("table1"), {}
    )
    looks = [Look("unfinished", "epoch 7") if one is None else Look("finished", "", one) for one in results]
    return Cell(point, runs, tuple(looks))


def test_the_later_tables_agree_with_the_first_except_where_the_paper_does_not():
    first = {(p.dataset, p.model, p.prior): p.published for p in paper.points("table1")}
    assert set(paper.TITLES) >= {*PRIORS, *paper.DATASETS, *paper.MODELS}
    assert len(first) == 48 and first["static_mnist", "hvae", "vamp"] == -83.19
    differing = {
        (name, point.dataset, point.model)
        for name, points in paper.TABLES.items()
        for point in points
        if first.get((point.dataset, point.model, point.prior), point.published) != point.published
    }
    assert differing == {("table2", "static_mnist", "hvae"), ("table3", "dynamic_mnist", "convhvae")}
    assert {note[:3] for note in paper.NOTES} > differing


def test_tables_and_figures_share_runs():
    point = next(p for p in paper.points("figure2") if p.components == 500 and p.prior == "vamp")
    of_table = next(p for p in paper.points("table2") if (p.model, p.prior) == ("hvae", "vamp"))
    assert name_of(point, 0) == name_of(of_table, 0) == "static_mnist-hvae-vamp-seed0"
    assert len(paper.points("figure2")) == 13 and len(paper.points("figure3")) == 14
    names = [name_of(p, 0) for p in paper.points("figure3")]
    assert len(set(names)) == 14 and "static_mnist-hvae-vamp-k1-iwae-seed0" in names


def test_figures_of_other_data_sets_and_numbers_of_components():
    """The paper has them for HVAEs on static MNIST; other cells have no published number."""
    ours = paper.points("figure2", ["caltech101"], components=[1, 7])
    assert [(p.prior, p.components) for p in ours] == [
        ("standard", None), ("mog", 1), ("mog", 7), ("vamp", 1), ("vamp", 7),
    ]  # fmt: skip
    assert all(p.published is None for p in ours)
    theirs = paper.points("figure2", components=[1000, 7])
    assert [p.published for p in theirs] == [-94.40, -92.79, None, -90.94, None]
    assert all(p.published is None for p in paper.points("figure3") if p.objective == "iwae")
    assert len(paper.points("figure3", paper.DATASETS)) == 6 * 14
    with pytest.raises(UsageError, match="--components goes with figure2 and figure3, not with table1"):
        paper.points("table1", components=[1])


def test_the_elbo_needs_no_refined_evaluation(root, places, tmp_path):
    """One of more samples, whatever its proposals, is as good; a table needs its own number of samples."""
    point = paper.Point("caltech101", "", None, "vae", "standard")
    settings = {**SMALL, **places}

    def of(evaluate, **how):
        return cells_of([point], root, 1, evaluate, settings, **how)[0]

    enough = [of({"samples": count, "proposal": "encoder"}) for count in (3, 5)]
    assert [cell.looks[0].state for cell in enough] == ["finished"] * 2
    for few in (of({"samples": 6, "proposal": "encoder"}), of({"samples": 3})):
        assert few.looks[0].state == "trained" and "S = 5, not" in few.text
    assert command_of(few.runs[0], few.looks[0]).endswith("caltech101-vae-standard-seed0' --samples 3")
    missing = paper.Point("caltech101", "", None, "vae", "flow")
    (cell,) = cells_of([missing], tmp_path, 1, paper.evaluation("figure2"), settings)
    assert command_of(cell.runs[0], cell.looks[0]).endswith(" --samples 100 --proposal encoder")
    assert paper.evaluation("figure4") is None and paper.evaluation("table1") == {"samples": 5000}


@pytest.mark.parametrize(
    ("values", "published", "bits", "expected"),
    [
        # Errors 0.3 and 0.04 of ours, 0.3 of the paper's: 0.426.
        ([-100.0], -99.58, False, "reproduced"),
        ([-100.0], -99.57, False, "not reproduced"),
        ([-100.0], -100.43, False, "better"),
        ([100.0], 100.43, True, "better"),
        ([100.0], 99.57, True, "not reproduced"),
        # Three seeds with a standard deviation of 2: an error of 1.155 more.
        ([-102.0, -100.0, -98.0], -98.78, False, "reproduced"),
        ([-102.0, -100.0, -98.0], -98.7, False, "not reproduced"),
    ],
)
def test_verdicts_by_hand(values, published, bits, expected):
    found = verdicts.ours(cell(paper.points("table1")[0], *map(result, values)))
    assert found.value == pytest.approx(np.mean(values)) and found.refined == found.value + 5
    seeds = np.std(values, ddof=1) ** 2 / len(values) if len(values) > 1 else 0.0
    assert found.error == pytest.approx(math.sqrt(0.09 + seeds + 0.0016 / len(values)))
    assert verdicts.verdict(found, published, bits) == expected


def test_grey_images_are_compared_in_bits():
    point = next(p for p in paper.points("table1") if (p.dataset, p.prior) == ("frey_faces", "vamp"))
    found = verdicts.ours(cell(point, result(-560 * math.log(2.0) * 4.55, standard_error=12.0)))
    assert found.value == pytest.approx(4.55)
    assert found.image_error == pytest.approx(12.0 / 560 / math.log(2.0))


def test_no_verdict_without_the_papers_samples_and_all_images():
    point = next(p for p in paper.points("table1") if p.prior == "vamp" and p.dataset == "static_mnist")
    few = cell(point, result(samples=500))
    assert verdicts.without_verdict(few) == "no verdict: S = 500, the paper has 5000"
    assert "100 of 10000 test images" in verdicts.without_verdict(cell(point, result(images=100)))
    assert verdicts.without_verdict(cell(point, result(), None)) == ""


def test_what_is_not_reproduced_has_its_evidence():
    point = next(p for p in paper.points("table2") if p.prior == "vamp" and p.model == "hvae")
    columns, digits = reproducing.columns("table2", [cell(point, result(-84.9), None)], details=True)
    assert columns["verdict"] == [f"not reproduced: {paper.EVIDENCE['static_mnist', 'hvae', 'vamp']}"]
    assert columns["difference"] == [pytest.approx(-1.71)] and digits["difference"] == [2]
    assert columns["state"] == ["seed 1: epoch 7"] and columns["seeds"] == ["1 of 2"]
    assert columns["KL"] == ["20.00 (z2 8.00, z1 12.00)"]
    assert columns["command"] == [
        "tfvamp train --resume runs/none/static_mnist-hvae-vamp-seed1 && "
        "tfvamp evaluate runs/none/static_mnist-hvae-vamp-seed1 --samples 5000"
    ]


def test_a_table_of_finished_unfinished_damaged_and_missing_cells(root, places, config):
    shown = table(root, places, config, "--format", "json")
    assert shown.exit_code == 0, shown.output
    finished, stopped, damaged, missing = json.loads(shown.stdout)
    evaluation = Run(root / "caltech101-vae-standard-seed0").evaluation()
    assert finished["encoder's q"] == pytest.approx(evaluation["encoder"]["log_likelihood"])
    assert finished["refined q"] == pytest.approx(evaluation["log_likelihood"])
    assert finished["paper"] == -123.43 and finished["state"] == ""
    assert finished["verdict"] == "no verdict: S = 5, the paper has 5000"
    assert stopped["state"] == "epoch 1" and stopped["encoder's q"] is None and stopped["verdict"] == ""
    assert "--resume" in stopped["command"] and stopped["command"].endswith("--samples 5")
    assert damaged["state"].startswith("not usable: ") and "config.json" in damaged["state"]
    assert damaged["command"] == ""
    assert missing["state"] == "not run" and missing["paper"] is None
    assert (
        missing["command"].startswith("tfvamp train --config ") and "--prior vamp-data" in missing["command"]
    )


def test_the_forms_of_a_table(root, places, config, tmp_path):
    latex = table(root, places, config, "--format", "tex").stdout
    assert r"a\_b\&c" in latex and "a_b&c" not in latex.split(r"\end{tabular}")[0]
    assert latex.splitlines()[-1].startswith("% tfvamp train")
    rows = list(csv.DictReader(io.StringIO(table(root, places, config, "--format", "csv").stdout)))
    assert [row["prior"] for row in rows] == ["standard", "VampPrior", "MoG", "VampPrior data"]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- vae -->\nold\n<!-- end of vae -->\nafter\n")
    assert table(root, places, config, "--output", page, "--section", "vae").exit_code == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- vae -->\n| prior |") and text.endswith(
        "<!-- end of vae -->\nafter\n"
    )
    assert (
        "old" not in text and "| unit |" not in text and "| state |" in text
    )  # the same, and not the same, in all rows
    wrong = table(root, places, config, "--output", page, "--section", "hvae")
    assert wrong.exit_code == 2 and "has no lines <!-- hvae -->" in wrong.output and page.read_text() == text


def test_results_are_kept_and_found_without_their_runs(root, places, tmp_path):
    points = paper.points("table1", ["caltech101"], ["vae"])
    settings = {**SMALL, **places}
    cells = cells_of(points, root, 1, {"samples": 5}, settings)
    assert [path.name for path in reproducing.keep(cells, tmp_path / "kept")] == [
        "caltech101-vae-standard-seed0.json"
    ]
    assert reproducing.keep(cells, tmp_path / "kept") == []  # nothing is new
    again = cells_of(points, tmp_path / "none", 1, {"samples": 5}, settings, tmp_path / "kept")
    assert again[0].results[0].encoder == cells[0].results[0].encoder
    assert again[1].looks[0].state == "missing"
    other = cells_of(points, tmp_path / "none", 1, {"samples": 6}, settings, tmp_path / "kept")
    assert other[0].text == "evaluated with S = 5, not 6" and not other[0].results
    path = tmp_path / "kept" / "caltech101-vae-standard-seed0.json"
    entry = json.loads(path.read_text())
    for key, value in (("log_likelihood", "1"), ("elbo", 1e300), ("num_examples", 7), ("encoder", [])):
        path.write_text(json.dumps({**entry, "evaluation": {**entry["evaluation"], key: value}}))
        if key in ("log_likelihood", "elbo"):  # of the encoder's estimate
            own = {**entry["evaluation"]["encoder"], key: value}
            path.write_text(json.dumps({**entry, "evaluation": {**entry["evaluation"], "encoder": own}}))
        damaged = look(again[0].runs[0], tmp_path / "kept")
        assert damaged.state == "damaged" and "evaluate it again" in damaged.text, key


class Quick(Here):
    """As `Here`; the proposals of evaluations are hardly refined."""

    def start(self, commands, log):
        status = super().start([words for words in commands if words[0] != "evaluate"], log)
        self.started[-1] = [list(words) for words in commands]
        with eagerly():
            for words in commands:
                if words[0] == "evaluate":
                    tfvamp.evaluate(words[1], int(words[words.index("--samples") + 1]), refine_steps=2)
        return status


def test_what_is_left_is_run_and_the_rest_left_alone(copy, places, monkeypatch):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.0)
    points = paper.points("table1", ["caltech101"], ["vae"], ["standard", "vamp", "mog"])
    settings, here = {**SMALL, **places}, Quick()
    cells = cells_of(points, copy, 1, {"samples": 5}, settings)
    done = reproducing.carry_out(cells, copy, workers=here)
    assert [run.name for run in done.runs] == ["caltech101-vae-vamp-seed0"] and not done.failed
    assert [words[:2] for words in here.started[0]] == [
        ["train", "--resume"],
        ["evaluate", str(copy / "caltech101-vae-vamp-seed0")],
    ]
    after = cells_of(points, copy, 1, {"samples": 5}, settings)
    assert [one.looks[0].state for one in after] == ["finished", "finished", "damaged"]
    assert after[1].results[0].epochs == 2
    again = reproducing.carry_out(after, copy, workers=Here())
    assert not again.runs


class Endless:
    """Workers whose commands end when they are stopped."""

    def __init__(self):
        self.started, self.stopped = 0, []

    def start(self, commands, log):
        self.started += 1
        return self.started

    def ended(self, handle):
        return 143 if handle in self.stopped else None

    def stop(self, handle):
        self.stopped.append(handle)

    def close(self):
        pass


def test_a_budget_stops_the_run_in_training_and_starts_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.0)
    cells = cells_of(paper.points("table1", ["caltech101"], ["vae"]), tmp_path, 2, {"samples": 5}, {})
    said, endless = [], Endless()
    done = reproducing.carry_out(cells, tmp_path, minutes=1e-3, workers=endless, say=said.append)
    assert endless.started == 1 and endless.stopped == [1] and done.signal is None and not done.failed
    assert said[0] == "the time is used up: the runs in training save what they have"
    assert "stopped: no epoch" in said[1]
    idle = Endless()
    assert not reproducing.carry_out(cells, tmp_path, minutes=0.0, workers=idle).runs and not idle.started


def test_hours_of_what_is_left_are_measured_once(root, places, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(hours, "minutes_per_epoch", lambda config: asked.append(config.prior) or 6.0)
    cells = cells_of(
        paper.points("table1", ["caltech101"], ["vae"], ["standard", "vamp", "mog", "vamp-data"]),
        root, 1, {"samples": 5}, {**SMALL, "epochs": 400, **places},
    )  # fmt: skip
    cells = [
        dataclasses.replace(one, looks=(Look("missing", "not run"),))
        if one.looks[0].state == "damaged"
        else one
        for one in cells
    ]
    said = []
    assert reproducing.hours_of(cells, tmp_path, 0.0, said.append).keys() == {
        "caltech101-vae-standard-seed0",
        "caltech101-vae-vamp-seed0",
    }  # whose history says it
    assert said[0].startswith("the hours of 2 runs are not measured yet")
    found = reproducing.hours_of(cells, tmp_path)
    assert asked == ["mog", "vamp-data"] and found["caltech101-vae-mog-seed0"] == pytest.approx(30.0)
    assert reproducing.hours_of(cells, tmp_path) == found and len(asked) == 2
    assert reproducing.state_of(cells[2], found) == "not run, about 30 hours"


def test_a_step_is_measured_without_data(eager):
    small = {**SMALL, "limit": 10, "components": 3}
    config = TrainConfig(dataset="frey_faces", prior="vamp-data", **small)
    assert 0.0 < hours.minutes_per_epoch(config) < 10.0


PNG = b"\x89PNG\r\n\x1a\n"


def test_figures_of_numbers():
    cells = {
        name: [cell(point, None if point.components == 10 else result()) for point in paper.points(name)]
        for name in ("figure2", "figure3")
    }
    assert (
        len({reproducing.draw(name, of_figure, plots.Look(dpi=30)) for name, of_figure in cells.items()}) == 2
    )
    for name in ("figure2", "figure3"):
        points = paper.points(name, ["static_mnist", "caltech101"], components=[1, 7])
        drawn = reproducing.draw(name, [cell(point, result()) for point in points], plots.Look("svg"))
        # Texts of a picture are paths, with their text in a comment.
        assert (
            drawn.count(b"Caltech 101") == drawn.count(b"static MNIST") == {"figure2": 1, "figure3": 2}[name]
        )
        assert b"<!-- 7 -->" in drawn and b"<!-- 300 -->" not in drawn
    cells["figure7"] = [
        cell(point, *([result()] if point.prior == "vamp" and point.model == "vae" else [None]))
        for point in paper.points("figure7", ["static_mnist"], ["vae", "hvae"])
    ]
    for name, of_figure in cells.items():
        assert reproducing.draw(name, of_figure, plots.Look(dpi=30)).startswith(PNG)
    svg = reproducing.draw("figure1", [], plots.Look("svg"))
    assert svg == reproducing.draw("figure1", [], plots.Look("svg")) and b"<svg" in svg


def test_figures_of_models(root, places, tmp_path, eager):
    settings = {**SMALL, **places}

    def drawn(name, **how):
        points = paper.points(name, ["caltech101"], ["vae"])
        # The stopped run is taken as it is: its weights are there.
        cells = cells_of(points, root, 1, None, {**settings, "epochs": 1})
        return reproducing.draw(name, cells, plots.Look(dpi=30), **how)

    for name in ("figure4", "figure5", "figure6", "gradients"):
        assert drawn(name).startswith(PNG)
    with pytest.raises(UsageError, match=r"--component must lie between 0 and 499; got 500"):
        drawn("figure4", component=500)
    none = cells_of(paper.points("gradients"), tmp_path, 1, None, {})
    assert reproducing.draw("gradients", none).startswith(PNG)


def test_a_component_that_equals_the_posterior_cancels_the_pull():
    rng = np.random.default_rng(0)
    loc, log_variance = rng.normal(size=(2, 1, 3)).astype(np.float32)
    posterior = DiagonalGaussian(np.repeat(loc, 4, axis=0), np.repeat(log_variance, 4, axis=0))
    same = DiagonalGaussian(loc[0], log_variance[0])
    model = types.SimpleNamespace(posterior=lambda images: posterior, prior=same)
    found = gradients.pulls(model, np.zeros([4, 1]))
    np.testing.assert_allclose(found.net, 0.0, atol=1e-5)
    assert (found.prior > 0.5).all()
    wide = DiagonalGaussian(tf.zeros([3]), tf.fill([3], 20.0))  # which hardly pulls: the noise is left
    model.prior = wide
    found = gradients.pulls(model, np.zeros([4, 1]))
    assert (found.prior < 1e-3).all() and (found.net > 0.5).all()


def test_bhattacharyya_distances_agree_with_integrals():
    one = DiagonalGaussian(np.array([[0.0], [1.0]], np.float32), np.array([[0.0], [1.0]], np.float32))
    other = DiagonalGaussian(
        np.array([[0.0], [-1.0], [2.0]], np.float32), np.array([[0.0], [0.5], [-1.0]], np.float32)
    )
    found = gradients.bhattacharyya(one, other).numpy()
    z = np.linspace(-20.0, 20.0, 40001)[:, np.newaxis].astype(np.float32)
    density = [np.exp(0.5 * of.log_prob(z[:, np.newaxis]).numpy().astype(float)) for of in (one, other)]
    expected = -np.log(np.einsum("zn,zk->nk", *density) * (z[1, 0] - z[0, 0]))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert abs(found[0, 0]) < 1e-6


def test_commands_name_what_differs():
    point = paper.Point("static_mnist", "", None, "hvae", "vamp", 10, "iwae")
    (run,) = planned_runs(point, tfvamp.files.expanded("runs"), 1, None, {})
    assert command_of(run, Look("missing", "not run")) == (
        "tfvamp train --dataset static_mnist --model hvae --prior vamp --components 10 --objective iwae --seed 0 "
        "--run-dir runs/static_mnist-hvae-vamp-k10-iwae-seed0"
    )
    with pytest.raises(UsageError, match="model is given by the cells"):
        planned_runs(point, tfvamp.files.expanded("runs"), 1, None, {"model": "vae"})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["table6"], "unknown table or figure 'table6'. Did you mean"),
        (["table1", "--datasets", "caltech"], "unknown data set 'caltech'. Did you mean 'caltech101'?"),
        (["table1", "--priors", "vampp"], "unknown prior 'vampp'. Did you mean 'vamp'?"),
        (["table2", "--datasets", "omniglot"], "table2 has no run of these data sets, models and priors"),
        (["table1", "--output", "x.png"], "--output must end with one of .md, .csv, .tex, .json"),
        (["figure2", "--format", "csv"], "unknown format 'csv'"),
        (["figure2", "--components", "1,x"], "--components must be whole numbers from 1 to 1000000"),
        (["figure2", "--components", "0"], "--components must be whole numbers"),
        (["figure3", "--components", ","], "--components must be whole numbers"),
        (["figure7", "--components", "1"], "--components goes with figure2 and figure3, not with figure7"),
        (["table1", "--section", "vae"], "--section goes with --output PAGE.md of a table"),
    ],
)
def test_mistakes_are_told_at_once(arguments, text):
    shown = reproduce(*arguments)
    assert shown.exit_code == 2 and text in shown.output.replace("\n", " ")


def test_a_run_of_other_settings_is_no_cell(root, places):
    run = cells_of(
        paper.points("table1", *([one] for one in VAE)),
        root,
        1,
        {"samples": 5},
        {**SMALL, "warmup": 1, **places},
    )
    assert "has other settings" in run[0].text and "warmup" in run[0].text
    with pytest.raises(RunError):
        run[0].runs[0].state()

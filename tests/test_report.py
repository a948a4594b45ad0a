"""tfvamp report: what the page says, in a real browser, and what hostile run folders cannot put into it."""

import dataclasses
import html.parser
import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import tfvamp
from tests.browser import browser
from tests.small import eagerly, small_model
from tfvamp import paper
from tfvamp.catalog import CATALOG
from tfvamp.config import MODELS, PRIORS, TrainConfig
from tfvamp.errors import UsageError
from tfvamp.models import VAE
from tfvamp.reports import report
from tfvamp.reports.contents import collected
from tfvamp.reports.images import Look
from tfvamp.reports.published import COLUMNS, departures, published
from tfvamp.reports.write import page
from tfvamp.runs import Run
from tfvamp_cli.main import main

pytestmark = pytest.mark.xdist_group("comparing")  # they share runs

EVIL = "<script>alert(1)</script>\x1b[31m\u202e\" onload='x' $title"
ELEMENTS = {
    "html", "head", "meta", "title", "link", "style", "body", "header", "main", "h1", "h2", "h3", "h4", "p", "article", "section",
    "div", "span", "strong", "b", "a", "ul", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "figure",
    "figcaption", "img", "svg", "line", "polyline", "circle", "text", "code", "pre",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "rel", "href", "id", "class", "role", "aria-label", "scope", "data-name", "src",
    "alt", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "points", "width", "height", "viewbox",
}  # fmt: skip


class Parsed(html.parser.HTMLParser):
    """The text of a page, in which nothing but the elements and attributes of a report may stand."""

    def __init__(self, text: str):
        super().__init__()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, name, attributes):
        assert name in ELEMENTS, name
        for key, value in attributes:
            assert key in ATTRIBUTES, (name, key)
            if key in ("src", "href"):
                assert value.startswith(("data:image/png;base64,", "data:,", "#run-"))

    def handle_data(self, data):
        self.words += data + " "


def words(path) -> str:
    text = path.read_text()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    return " ".join(Parsed(text).words.split())


def changed(path, **entries) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.fixture
def evaluated(evaluated_runs, tmp_path):
    """A copy of an evaluated run, to be damaged."""
    return shutil.copytree(evaluated_runs / "a", tmp_path / "run")


@pytest.mark.slow
def test_two_runs_in_a_browser(evaluated_runs, tmp_path):
    """Nothing is wider than the page, asked of a network, or refused by the page's own policy."""
    path = report([evaluated_runs / "a", evaluated_runs / "b"], tmp_path / "r.html")
    seen = []
    with browser() as chromium:
        for width, scheme in ((400, "light"), (1280, "dark")):
            shown = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            shown.on("console", lambda message: seen.append(message.text))
            shown.on("pageerror", lambda error: seen.append(str(error)))
            shown.on("request", lambda request: seen.append(request.url))
            shown.goto(path.as_uri())
            assert shown.evaluate("document.documentElement.scrollWidth") == width
            loaded = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
            assert shown.evaluate("document.images.length") == 6 and shown.evaluate(loaded)
            ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")  # the style is allowed
            assert ground == {"light": "rgb(246, 245, 242)", "dark": "rgb(22, 24, 27)"}[scheme]
    assert [url for url in seen if not url.startswith("data:")] == [path.as_uri()] * 2


def test_settings_that_are_not_the_default_come_first(evaluated_runs, tmp_path, monkeypatch):
    def chosen(name):
        text = words(report([evaluated_runs / "a"], tmp_path / name, images=0))
        return text.split("All others have their defaults")[0].split()

    assert {"components", "jit"} <= set(chosen("1.html"))
    monkeypatch.setattr(VAE, "faster_with_xla", False)  # then the run has what the model would choose
    assert "jit" not in chosen("2.html")


def test_numbers_are_those_of_the_run_and_of_compare(evaluated_runs, tmp_path):
    a, b = (evaluated_runs / name for name in "ab")
    text = words(report([a, b], tmp_path / "r.html", images=0, baseline=a))
    row = tfvamp.compare([a, b]).iloc[1]
    for prefix in ("", "encoder_"):
        assert f"{row[f'{prefix}difference']:.2f} ± {row[f'{prefix}difference_error']:.2f}" in text
    for name in "ab":
        result = Run(evaluated_runs / name).evaluation()
        for one in (result, result["encoder"]):
            assert f"{one['log_likelihood']:.2f} ± {one['standard_error']:.2f}" in text
            assert f"{one['monte_carlo_error']:.3f}" in text
    assert "Comparison of 2 runs" in text and "learning_rate 0.01" in text
    assert "The paper prints no number for this data set, model and prior." in text
    assert "@inproceedings{tomczak2018vampprior," in text and "lecun1998gradient" in text


def test_the_printed_number_stands_beside_the_encoders(evaluated, tmp_path, monkeypatch):
    """In its row the other estimate has no cell; what differs from the paper's conditions is said."""
    monkeypatch.setitem(paper.TABLE1, "mnist5k", tuple(float(-100 - index) for index in range(8)))
    path = report(evaluated, tmp_path / "r.html", images=0)
    own = Run(evaluated).evaluation()["encoder"]["log_likelihood"]
    rows = re.findall(r"<tr>(.*?)</tr>", path.read_text())
    cells = {row[0]: row[1:] for row in ([*filter(None, re.split("<[^>]*>", row))] for row in rows)}
    assert cells["paper, Table 1"] == ["-101.00", "\N{EN DASH}"]
    assert cells["this run minus the paper"] == [f"{own + 101:.2f}", "\N{EN DASH}"]
    text = words(path)
    assert "hidden_units 12 (300)" in text and "components 7 (500)" in text and "limit 60 (None)" in text
    assert "over all 500 test images" in text and "5000 samples per image" in text


def test_the_papers_cells():
    assert all(len(row) == len(COLUMNS) for row in paper.TABLE1.values()) and set(paper.TABLE1) < set(CATALOG)
    of = {
        (dataset, model, prior): published(TrainConfig(dataset=dataset, model=model, prior=prior))
        for dataset in CATALOG
        for model in MODELS
        for prior in PRIORS
    }
    assert (
        sum(one is not None for one in of.values()) == 48 + 3
    )  # of Tables 2 and 3, those that Table 1 does not have
    assert of["caltech101", "vae", "vamp"][:3] == (-114.55, "log_likelihood", 1)
    assert of["frey_faces", "pixelhvae", "vamp"][:3] == (4.38, "bits_per_dim", 1)
    assert of["static_mnist", "hvae", "mog"][:3] == (-85.07, "log_likelihood", 2)
    assert of["caltech101", "vae", "mog"] is None
    spec = CATALOG["caltech101"]
    usual = TrainConfig(dataset="caltech101").resolve(spec)
    assert departures(usual, spec) == []
    assert departures(dataclasses.replace(usual, beta=0.5, seed=3), spec) == ["beta 0.5 (1.0)"]


@pytest.mark.parametrize(
    "name, prior",
    [("vae", "standard"), ("vae", "mog"), ("hvae", "vamp-weighted"), ("vae", "flow"), ("pixelhvae", "vamp")],
)
def test_pictures_of_priors_and_models(name, prior, trained, monkeypatch, shallow):
    """Colour images; a prior without components has no picture of any."""
    model = small_model(tfvamp.models.MODELS[name], prior, event_shape=(6, 5, 3))
    monkeypatch.setattr(Run, "model", lambda self: model)
    run = Run(trained)
    run.spec = dataclasses.replace(run.spec, shape=(6, 5, 3))
    notes = []
    with eagerly():
        contents = collected(run, Look(images=10), notes.append)
    kind = {True: "Pseudo-inputs", False: "Components"}[PRIORS[prior].pseudo_inputs is not None]
    expected = ["Samples", kind] if PRIORS[prior].mixture else ["Samples"]
    assert [picture.title for picture in contents.pictures] == expected
    assert notes[-1].startswith("reconstructions are left out: ")


def test_a_run_in_its_first_epoch(run, tmp_path):
    (run / "history.csv").unlink()
    shutil.rmtree(run / "best")
    said = []
    text = words(report(run, tmp_path / "r.html", say=said.append))
    assert said == [f"no epoch is finished: tfvamp train --resume {run}"] and said[0] in text
    assert "there is no trained model" in text


def test_parts_that_cannot_be_read_are_left_out_with_a_note(evaluated, tmp_path):
    with (evaluated / "history.csv").open("a") as file:
        file.write("4,nan\n")
    (evaluated / "evaluation.json").write_text('{"log_likelihood": "?"}')
    (evaluated / "diagnosis.json").write_text(json.dumps({"weights_sha256": Run(evaluated).weights_sha256}))
    (evaluated / "best" / "model.weights.h5").write_bytes(b"damaged")
    said = []
    text = words(report(evaluated, tmp_path / "r.html", say=said.append))
    for start in ("damaged after epoch 3", "the evaluation of test is left out", "pictures are left out"):
        assert len([one for one in said if start in one]) == 1 and start in text
    assert "diagnosis is not of the weights" in text and "Training" in text


def test_a_hostile_run(evaluated, tmp_path):
    config = json.loads((evaluated / "config.json").read_text())
    config |= {"command": EVIL, "started": EVIL, "versions": {"tfvamp": EVIL, EVIL: "1"}}
    config["data"] |= {"sources": {EVIL: EVIL}, "sizes": {"train": EVIL}}
    (evaluated / "config.json").write_text(json.dumps(config))
    result = json.loads((evaluated / "evaluation.json").read_text())
    result |= {
        "proposal": EVIL,
        "seed": EVIL,
        "warning": EVIL,
        "prior_density": EVIL,
        "curve": [{"num_samples": 0}, 3, {}],
    }
    result |= {
        "elbo": 10**400,
        "pareto_k": [1],
        f"kl_z{EVIL}": 3.0,
        "encoder": result["encoder"] | {"curve": None},
    }
    (evaluated / "evaluation.json").write_text(json.dumps(result))
    diagnosis = {"weights_sha256": Run(evaluated).weights_sha256, "layers": {EVIL: {"variances": [1e300]}}}
    (evaluated / "diagnosis.json").write_text(json.dumps(diagnosis))
    folder = evaluated.rename(tmp_path / "<img src=x onerror=alert(1)>\x1b")
    text = words(report(folder, tmp_path / "r.html", title=EVIL, images=4))
    assert "<script>alert(1)</script>?[31m?\" onload='x' $title" in text
    assert (
        "the diagnosis is left out: it is damaged" in text and "is not exact in these numbers, but:" in text
    )


def test_a_huge_history_makes_a_small_page(run, tmp_path):
    lines = (run / "history.csv").read_text().splitlines()
    rows = [f"{epoch},{lines[-1].partition(',')[2]}" for epoch in range(1, 30_001)]
    (run / "history.csv").write_text("\n".join([lines[0], *rows, ""]))
    path = report(run, tmp_path / "r.html", images=0)
    assert path.stat().st_size < 100_000 and "30000 epochs" in words(path)


def test_paths_can_be_hidden(evaluated, tmp_path):
    place = str(Run(evaluated).config.data_dir)
    changed(evaluated / "config.json", command=f"tfvamp train --data-dir {place} --run-dir={evaluated}")
    (evaluated / "evaluation.json").write_text("{")
    open_text = words(report(evaluated, tmp_path / "open.html", images=0))
    hidden = words(report(evaluated, tmp_path / "hidden.html", images=0, hide_paths=True))
    assert place in open_text and str(tmp_path) in open_text
    assert place not in hidden and str(tmp_path) not in hidden and "--data-dir data" in hidden


def test_an_evaluation_of_older_weights_is_not_shown(evaluated, tmp_path):
    changed(evaluated / "evaluation.json", weights_sha256="0")
    text = words(report(evaluated, tmp_path / "r.html", images=0))
    assert "not of the weights that the run has now" in text and "Monte Carlo error 0" not in text


def test_where_it_is_written(evaluated_runs, run, tmp_path):
    def command(*arguments):
        return CliRunner().invoke(main, ["report", "--images", "0", *map(str, arguments)])

    result = command(run)
    assert result.exit_code == 0 and result.stdout.startswith(f"wrote {run}/report.html (")
    assert "was not estimated: tfvamp evaluate" in result.stderr
    before = (run / "report.html").read_bytes()
    result = command(run)
    assert result.exit_code == 2 and "exists: replace it with --overwrite" in result.stderr
    assert command(run, "--overwrite").exit_code == 0 and (run / "report.html").read_bytes() == before
    for arguments, text in (
        ((run, evaluated_runs / "a"), "a report on several runs needs a file: --output report.html"),
        ((run, "--output", tmp_path / "r.pdf"), "its name must end with .html"),
        ((run, "--output", tmp_path / "none" / ".." / "run.html"), ""),
        ((tmp_path / "nowhere",), "there is no run folder"),
    ):
        result = command(*arguments)
        assert result.exit_code == (0 if not text else 1 if "nowhere" in str(arguments) else 2), result.stderr
        assert text in result.stderr
    with pytest.raises(UsageError, match="between 0 and 400"):
        report(run, tmp_path / "r.html", images=-1)


def test_a_page_is_the_same_each_time(evaluated):
    pages = {page([collected(Run(evaluated), Look(images=0))]) for _ in range(2)}
    assert len(pages) == 1 and np.char.count(pages.pop(), "$") == 0

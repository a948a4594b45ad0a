"""The site of docs/: it is built without a warning, its links lead somewhere, and its reference is that of the code."""

import html.parser
import pathlib
import re
import urllib.parse

import click
import pytest

from tfvamp_cli.main import main

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
BUILD = """
import sys
import sphinx.cmd.build
sys.exit(sphinx.cmd.build.main(["--quiet", "-W", "--keep-going", docs, site]))
"""


class Page(html.parser.HTMLParser):
    """The identifiers of a page, and where it leads: links, pictures, style sheets, scripts."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.identifiers: set[str] = set()
        self.targets: list[str] = []
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.identifiers.add(value)
            elif name in ("href", "src") and value:
                self.targets.append(value)


@pytest.fixture(scope="module")
def site(storm, tmp_path_factory) -> pathlib.Path:
    """The folder of the site, built as `make docs` does it."""
    folder = tmp_path_factory.mktemp("site")
    given = f"docs, site = {str(DOCS)!r}, {str(folder)!r}\n"
    answer = storm(python=given + BUILD, folder=folder, eager=False)
    assert answer["status"] == 0, answer["stdout"][-2000:] + answer["stderr"][-4000:]
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[pathlib.Path, Page]:
    return {path: Page(path) for path in site.glob("*.html")}


pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]


def test_every_page_is_built(pages):
    assert {path.stem for path in pages} >= {path.stem for path in DOCS.glob("*.md")}


def test_links_and_anchors_lead_somewhere(pages):
    for path, page in pages.items():
        for target in page.targets:
            parts = urllib.parse.urlsplit(target)
            if parts.scheme or target == "#":
                continue
            file = path.parent / urllib.parse.unquote(parts.path) if parts.path else path
            assert file.exists(), (path.name, target)
            if parts.fragment and file in pages:
                assert urllib.parse.unquote(parts.fragment) in pages[file].identifiers, (path.name, target)


def test_pages_load_nothing_from_elsewhere(pages):
    for path, page in pages.items():
        for loaded in re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"([^\"]+)\"", page.text):
            assert not urllib.parse.urlsplit(loaded).netloc, (path.name, loaded)


def test_equations_are_typeset(site):
    method = (site / "method.html").read_text()
    displayed = len(re.findall(r"^\$\$$", (DOCS / "method.md").read_text(), re.MULTILINE)) // 2
    assert method.count('<div class="displayed-math"><math') == displayed > 5
    assert "merror" not in method and "$$" not in method


def test_signatures_are_those_of_the_code(site):
    """Keras's metaclass hides them: without care, each class reads (*args, **kwargs)."""
    for path in site.glob("api-*.html"):
        text = re.sub(r"<[^>]+>", "", path.read_text())
        assert "*args" not in text, path.name
    layers = re.sub(r"<[^>]+>|\s", "", (site / "api-layers.html").read_text())
    assert "tfvamp.layers.VampPriorLayer(encoder:Layer,num_components:int,event_shape=None" in layers
    assert "tfvamp.layers.GaussianSample(seed:int|None=None,**kwargs" in layers


def commands(group: click.Group, above: str) -> list[tuple[str, click.Command]]:
    """All commands, by the identifiers that their sections have."""
    found = []
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        found.append((f"{above}-{name}", command))
        if isinstance(command, click.Group):
            found += commands(command, f"{above}-{name}")
    return found


def test_the_reference_has_every_command_and_option(pages):
    (page,) = (page for path, page in pages.items() if path.name == "cli.html")
    for name, command in commands(main, "tfvamp"):
        assert name in page.identifiers
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert any(
                    identifier.startswith(f"cmdoption-{name}-") and identifier.endswith(option.strip("-"))
                    for identifier in page.identifiers
                    for option in parameter.opts
                ), (name, parameter.opts)


def test_the_tests_that_the_pages_name_exist():
    for page in DOCS.glob("*.md"):
        for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page.read_text()):
            assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(), (page.name, file, name)

"""Sphinx settings of the site: Markdown pages, docstrings, and the options of the command line."""

import dataclasses
import importlib.metadata
import inspect
import re

from docutils import nodes
from latex2mathml import converter
from sphinx.util.inspect import signature as signature_of
from sphinx.util.inspect import stringify_signature

project = "tfvamp"
author = "the tfvamp authors"
release = importlib.metadata.version("tfvamp")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns: list[str] = []
suppress_warnings = ["ref.python"]  # attributes of one name in two classes; everything else is an error

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3  # so that links to headings are checked
highlight_language = "text"
smartquotes = False  # "--option" stays what is typed

autoclass_content = "class"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # those of Keras and TFP are in other formats
default_role = "code"  # of `names` in docstrings
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Call", "returns_style")]
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = "tfvamp"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"
linkcheck_timeout = 20
linkcheck_ignore = [r"http://127\.0\.0\.1", r"http://localhost"]


def true_signature(app, what, name, obj, options, signature, return_annotation):
    """Returns the signature of a class's `__init__`, which Keras's metaclass and `__new__` hide."""
    if what != "class":
        return None
    if getattr(obj, "_is_protocol", False):
        return "", None
    if not inspect.isfunction(obj.__init__):  # named tuples, and classes without arguments
        return None
    return stringify_signature(
        signature_of(obj.__init__, bound_method=True), unqualified_typehints=True
    ), None


def with_settings(app, what, name, obj, options, lines: list[str]) -> None:
    """Adds what each setting of a dataclass of settings means, which is written once, as the help of its option."""
    if what == "class" and dataclasses.is_dataclass(obj):
        described = [field for field in dataclasses.fields(obj) if "help" in field.metadata]
        lines += ["", *(f":ivar {field.name}: {field.metadata['help']}" for field in described)]


def as_written(app, what, name, obj, options, lines: list[str]) -> None:
    """Escapes what is mathematics in our docstrings and markup in reStructuredText: [K, *event], |det|."""
    for index, line in enumerate(lines):
        line = re.sub(r"(?<= )([A-Z])\.$", r"\1\\.", line)  # "K." alone would be a list
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split("(`[^`]*`)", line)
            parts[::2] = [re.sub(r"(?<!\\)(\*(?! )|\|)", r"\\\1", text) for text in parts[::2]]
            lines[index] = "".join(parts)


def examples_as_code(app, ctx, lines: list[str]) -> None:
    """Turns the examples of a command, which sphinx-click gives as lines that begin with a bar, into a code block."""
    before, lines[:] = list(lines), []
    for line in before:
        example = re.fullmatch(r"\|   *(tfvamp .*)", line.rstrip())
        if example is None:
            lines.append(line.removeprefix("| "))
        else:
            if not lines or not lines[-1].startswith("    "):
                lines += ["", ".. code-block:: text", ""]
            lines.append("    " + example.group(1))


def with_dashes(app, doctree: nodes.document) -> None:
    """Writes a dash between the name of an argument and what it means, as `smartquotes` would."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def _mathml(latex: str, display: str) -> str:
    """Returns MathML, with the space after "log" that the converter leaves out."""
    return converter.convert(latex, display=display).replace("<mi>log</mi>", '<mo rspace="0.17em">log</mo>')


def _inline_math(writer, node: nodes.math) -> None:
    writer.body.append(_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _displayed_math(writer, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="displayed-math">{_mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app) -> None:
    app.connect("autodoc-process-signature", true_signature)
    app.connect("autodoc-process-docstring", with_settings, priority=800)
    app.connect("autodoc-process-docstring", as_written, priority=900)  # after napoleon
    app.connect("doctree-read", with_dashes)
    app.connect("sphinx-click-process-description", examples_as_code)
    # MathML: browsers typeset it themselves, without a script from elsewhere, in the page's colours.
    app.add_html_math_renderer("mathml", (_inline_math, None), (_displayed_math, None))

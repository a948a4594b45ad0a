"""HTML in which every text is escaped: what comes from a run may contain anything."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tfvamp.files import printable

LONGEST = 4000  # maximum number of letters of a text
SHORT = 16  # maximum number of letters of a cell that stays on one line
VOID = ("img", "br")


class Html(str):
    """Text that is HTML already. Every other text is escaped where it is put into a page."""


def escaped(content: Any) -> Html:
    """Returns a text as HTML, without control characters; long texts are cut."""
    if isinstance(content, Html):
        return content
    text = printable(content)
    return Html(html.escape(text if len(text) <= LONGEST else f"{text[:LONGEST]}..."))


def joined(*contents: Any) -> Html:
    """Returns texts and HTML one after the other."""
    return Html("".join(escaped(content) for content in contents))


def tag(name: str, *contents: Any, **attributes: Any) -> Html:
    """Returns an element. An attribute such as `class` is given as `class_`; one that is None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{joined(*contents)}</{name}>")


def facts(rows: dict[str, Any], class_: str = "facts") -> Html:
    """Returns a list of names and descriptions; entries that are None or empty are left out."""
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows.items() if value),
        class_=class_,
    )


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Html:
    """Returns a table whose first column names the rows; on a narrow page, each row becomes a block."""
    names = [escaped(name) for name in head]
    top = tag("thead", tag("tr", *(_cell("th", name, scope="col") for name in names)))
    body = []
    for row in rows:
        cells = [
            _cell("td", cell, data_name=_text(name)) for name, cell in zip(names[1:], row[1:], strict=True)
        ]
        body.append(tag("tr", _cell("th", row[0], scope="row"), *cells))
    return tag("table", top, tag("tbody", *body), class_="wide" if len(names) > 4 else None)


def _cell(name: str, content: Any, **attributes: Any) -> Html:
    """Returns a cell, whose text is broken only between words if it has no long ones, and not at all if it is short."""
    text = _text(escaped(content))
    short = (
        "short"
        if len(text) <= SHORT and "scope" not in attributes
        else "words"
        if max(map(len, text.split()), default=0) <= SHORT
        else None
    )
    return tag(name, content, class_=short, **attributes)


def items(texts: Iterable[Any], class_: str | None = None) -> Html:
    """Returns a list of texts; empty if there are none."""
    entries = [tag("li", text) for text in texts]
    return tag("ul", *entries, class_=class_) if entries else Html()


def section(title: Any, *contents: Any, level: int = 3) -> Html:
    """Returns a part of a page under a heading."""
    return tag("section", tag(f"h{level}", title), *contents)


def picture(png: bytes, caption: Any, text: str) -> Html:
    """Returns a PNG file as a figure; `text` describes it for those who cannot see it."""
    source = Html("data:image/png;base64," + base64.b64encode(png).decode())
    return tag("figure", tag("img", src=source, alt=text), tag("figcaption", caption), class_="picture")


def _text(content: Html) -> str:
    """Returns the text of HTML without elements."""
    return html.unescape(re.sub("<[^>]*>", "", content))

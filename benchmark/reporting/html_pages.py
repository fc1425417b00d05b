"""Pages of HTML, from the templates that lie beside what fills them, and text as HTML."""

import html
import re
from pathlib import Path
from typing import Any

from markupsafe import Markup


def render(template: Path, **values: Any) -> str:
    """The page that `template` makes of `values`: text is escaped, `markupsafe.Markup` is not.

    Raises:
        UndefinedError: the template names a value that is not given.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template(template.name).render(values)


def html_text(text: str, *, marks: bool = False) -> Markup:
    """Text as HTML shows it, with what is bold in a table as `<strong>`; with `marks` those of a caption, too."""
    shown = re.sub(r"\*\*(.+)\*\*", r"<strong>\1</strong>", html.escape(text))
    if marks:
        shown = re.sub(r"``(.+?)``", r"<code>\1</code>", re.sub(r"\*([^*]+)\*", r"<em>\1</em>", shown))
    return Markup(shown)

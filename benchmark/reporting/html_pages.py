"""Pages of HTML, from the templates that lie beside what fills them."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: Path, **values: Any) -> str:
    """The page that `template` makes of `values`: text is escaped, `markupsafe.Markup` is not.

    Raises:
        UndefinedError: the template names a value that is not given.
    """
    templates = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template(template.name).render(values)

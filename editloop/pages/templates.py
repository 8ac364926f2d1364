"""HTML pages from Jinja templates: one environment, escaping on, one style."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from editloop.pages.plots import page_style


def render(template: Path, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Render one self-contained HTML page.

    Args:
        template: The template's file; it may include others of its folder.
        filters: Filters of the template, by name.
        **values: What the template shows. `style` is always there: the style sheet of all pages.

    Returns:
        The HTML. Values are escaped, unless they are `Markup`.
    """
    environment = Environment(
        loader=FileSystemLoader(template.parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters or {}
    return environment.get_template(template.name).render(style=Markup(page_style()), **values)

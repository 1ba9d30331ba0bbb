"""How every page is made: the templates, and the figures as they write them."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from tfport.report import words

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup


def breakable(name: str) -> Markup:
    """A name, escaped, that a narrow column breaks behind "/", ".", ":" and "_" before it breaks anywhere else."""
    from markupsafe import Markup

    parts = re.split(r"(?<=[/.:_])(?=[^\s/.:_])", name)
    return Markup("<wbr>").join(parts)


@cache
def template(name: str) -> Template:
    """One of the pages in `templates`; everything in it is escaped but what it calls safe."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tfport.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": lambda value: "–" if value is None else words.figure(value),
        "ulps": lambda value: "–" if value is None else words.ulps(value),
        "title": lambda name: name.replace("_", " "),
        "precise": lambda value: words.exact(value, "float32"),
        "counted": words.counted,
        "breakable": breakable,
    }
    return environment.get_template(name)

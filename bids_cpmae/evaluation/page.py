"""Results as one HTML file that needs nothing else: tables, plots inline, settings at the end."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bids_cpmae import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Table:
    """A table as shown; None stands for a value that there is not."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence]


@dataclass(frozen=True)
class Section:
    """A part of a page: what was measured in words, then tables, then plots."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()


def write_page(path: Path, title: str, sections: Sequence[Section], *, settings: dict | None = None) -> Path:
    """Write a page with no script in it and no request to anywhere.

    Parameters
    ----------
    path : Path
        Written beside and renamed, so that it is there whole or not at all.
    title : str
    sections : sequence of Section
    settings : dict, optional
        Shown as JSON at the end.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("bids_cpmae.evaluation", ".")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template(TEMPLATE)
    pictures = [[_picture(figure) for figure in section.figures] for section in sections]
    text = page.render(
        title=title, parts=list(zip(sections, pictures, strict=True)), version=__version__,
        settings=json.dumps(settings, indent=2, default=str) if settings else None,
    )  # fmt: skip
    partial = Path(path).with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return Path(path)


def _picture(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()

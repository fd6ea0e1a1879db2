"""Pages from templates: everything escaped, everything inside, no request to anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from bids_cpmae import __version__
from bids_cpmae.bids.sidecar import read_sidecar
from bids_cpmae.bids.verdicts import FAIL, LOGS, PASS, REVIEW, SKIPPED, without_paths

VERDICTS = {
    PASS: "written, read back and certified",
    REVIEW: "the same, but look at it before it is shared",
    FAIL: "not written; the reason says what to do",
    SKIPPED: "left alone or not come to; the reason says why",
}
GROUP_PAGE = "group.html"


@lru_cache(maxsize=1)
def environment():
    """The templates of this folder."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("bids_cpmae.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["value"] = shown
    pages.globals.update(version=__version__, verdicts=VERDICTS, group_page=GROUP_PAGE)
    return pages


def fill(template: str, **content) -> str:
    """A template with content in its places."""
    return environment().get_template(template).render(**content)


def page_name(participant: str) -> str:
    """File name of a participant's page."""
    return f"sub-{participant}.html"


def link_to(name: str) -> str:
    """A file beside the page as a link; a dot first, so that no colon in a name makes it a scheme."""
    return f"./{quote(name)}"


def shown(value: object) -> str:
    """A number as it is read: four digits where it has many; other things as they are."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(number):
        return "n/a"
    whole = number == round(number) or abs(number) >= 1e4
    return f"{number:,.0f}" if whole and abs(number) < 1e15 else f"{number:.4g}"


def dataset_name(output_dir: Path) -> str:
    """What the dataset is called."""
    return str(read_sidecar(output_dir / "dataset_description.json").get("Name") or "refaced dataset")


def made_with(output_dir: Path) -> dict[str, str]:
    """Software and version that the dataset says it was made with."""
    entries = read_sidecar(output_dir / "dataset_description.json").get("GeneratedBy")
    entries = entries if isinstance(entries, list) else []
    return {str(entry.get("Name")): str(entry.get("Version", "")) for entry in entries if isinstance(entry, Mapping)}


def citation(output_dir: Path) -> list[str]:
    """Paragraphs of the methods text."""
    try:
        text = (output_dir / LOGS / "CITATION.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    parts = (" ".join(part.split()) for part in without_paths(text).split("\n\n"))
    return [part for part in parts if part and not part.startswith("#")]

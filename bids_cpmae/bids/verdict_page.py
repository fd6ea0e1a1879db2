"""The page that says how verdicts come about, written from the tables that decide.

``python -m bids_cpmae.bids.verdict_page > docs/verdicts.md`` renews it; a test holds the page against the tables.
"""

from __future__ import annotations

from bids_cpmae.bids.thresholds import THRESHOLDS
from bids_cpmae.bids.verdicts import FAIL, MEASURES, SKIPPED
from bids_cpmae.imaging.screening import ALREADY_BLURRED, ALREADY_DEFACED, CHECKS, LEAST_FACE_SEEN

HEAD = """# Verdicts

Every scan gets one of four, with a reason that says what to do:

| verdict | means | written |
|---|---|---|
| PASS | certified, and every measure is within its limits | yes |
| REVIEW | certified, but a measure is beyond a limit: look at it before sharing | yes |
| FAIL | it cannot be refaced as it is, or what came out must not be shared | no |
| SKIPPED | left alone on purpose, for there is no face in it to replace; or the run ended before it | no |

This page is written from the tables in the code (`python -m bids_cpmae.bids.verdict_page > docs/verdicts.md`).

## Before anything is worked out

Files that cannot be read, hold no single volume of real numbers, have fewer than 8 slices, no orientation, mostly NaN,
or one value only are FAIL. Then, in this order:

| recognised | verdict | what to do | `--force` goes on |
|---|---|---|---|
"""
LOCATED = """
## Once the face was found

| recognised | verdict | `--force` goes on |
|---|---|---|
| less than {seen:.0%} of the face in the field of view | SKIPPED | yes |
| more than {cut:.0%} of the face is one constant value: taken away before | SKIPPED | yes |
| less than {blur:.0%} of the fine detail of the rest of the head: blurred before | SKIPPED | yes |

A face that another tool has replaced by a natural one, noise and all, is not recognised by its voxels, only by its
sidecar or name.

## Once the new face is in place

The certificate comes first: a voxel outside the mask or in the brain that changed is FAIL, whatever the measures say.
A measure that cannot be taken (no ears in view, say) says nothing.

| measure | REVIEW | FAIL | means | what was seen |
|---|---|---|---|---|
"""
COLUMNS = "\n## Measures\n\n| column | description |\n|---|---|\n"


def page() -> str:
    """The page, in Markdown."""
    checks = [
        f"| {check.what} | {SKIPPED if check.skips else FAIL} | {check.way_out} | {'yes' if check.forced else 'no'} |"
        for check in CHECKS
    ]
    limits = []
    for one in THRESHOLDS:
        look, fail = _limits(one.review_below, one.review_above), _limits(one.fail_below, one.fail_above)
        limits.append(f"| `{one.measure}` | {look} | {fail} | {one.means}; {one.way_out} | {one.why} |")
    columns = [f"| `{name}` | {text} |" for name, text in MEASURES.items()]
    located = LOCATED.format(seen=LEAST_FACE_SEEN, cut=ALREADY_DEFACED, blur=ALREADY_BLURRED)
    return "".join((HEAD, _lines(checks), located, _lines(limits), COLUMNS, _lines(columns)))


def _limits(below: float | None, above: float | None) -> str:
    parts = [f"< {below:g}"] if below is not None else []
    return " or ".join([*parts, f"> {above:g}"] if above is not None else parts)


def _lines(rows: list[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    print(page(), end="")

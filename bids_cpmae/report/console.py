"""Progress and the table of verdicts: a bar and colours on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager

from bids_cpmae.bids.verdicts import FAIL, PASS, REVIEW, SKIPPED, Verdict

LOG = logging.getLogger("bids_cpmae")
COLOURS = {PASS: "green", REVIEW: "yellow", FAIL: "red", SKIPPED: "cyan"}


@contextmanager
def progress(total: int):
    """Yields a function to call once a scan; draws a bar on a terminal, else logs a line a scan."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("refacing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("scans", total=total)
            yield lambda: bar.advance(task)
        return
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        LOG.info("%d of %d scans done", done, total)

    yield advance


def print_verdicts(verdicts: list[Verdict]) -> None:
    """The table at the end of a run, on standard output."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("scan", "verdict", "reason", box=None)
    for verdict in verdicts:
        colour = COLOURS[verdict.verdict]
        table.add_row(escape(verdict.source), f"[{colour}]{verdict.verdict}[/{colour}]", escape(verdict.reason))
    # a pipe has no width: do not fold the lines that a script would read
    console = Console() if sys.stdout.isatty() else Console(width=240)
    console.print(table)
    counts = {name: sum(v.verdict == name for v in verdicts) for name in COLOURS}
    console.print(", ".join(f"{count} {name}" for name, count in counts.items() if count))

"""``cpmae evaluate compare``: privacy and utility of the same versions of the same people, one after the other."""

from __future__ import annotations

import argparse

from bids_cpmae.evaluation import privacy, utility


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae evaluate compare``, those of both."""
    utility.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run ``cpmae evaluate privacy``, then ``cpmae evaluate utility``; each leaves its own tables and page."""
    return privacy.main(args) or utility.main(args)

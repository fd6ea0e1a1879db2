"""``cpmae evaluate card``: all that a model card states of weights, measured anew and held against what is asked.

Realism, privacy (over several seeds) and utility one after the other, each with its own tables and page in a folder of
its own, then one table of all figures. For whoever changes how faces are found, drawn or composed: a figure that nobody
takes again is a figure that nobody knows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bids_cpmae.bids.tsv import read_tsv
from bids_cpmae.errors import ExitCode
from bids_cpmae.evaluation import privacy, realism, recognition, utility
from bids_cpmae.evaluation.datasets import add_folder_arguments, add_people_arguments
from bids_cpmae.evaluation.page import Section, Table, write_page
from bids_cpmae.evaluation.tables import print_table, versions, write_json, write_tsv

FACE, HEAD = "cpmae-face", "cpmae-head"
HEADER = ("figure", "found", "asked", "met")
WITHIN = 0.15


@dataclass(frozen=True)
class Figure:
    """A line of the table: what was found, and whether that is what was asked, where anything was."""

    name: str
    found: str
    asked: str | None = None
    met: bool | None = None

    @classmethod
    def least(cls, name: str, value: float, asked: float) -> Figure:
        """A figure that is to be so much at least."""
        return cls(name, f"{value:.4g}", f">= {asked:g}", value >= asked)

    @classmethod
    def most(cls, name: str, value: float, asked: float) -> Figure:
        """A figure that is to be so much at most."""
        return cls(name, f"{value:.4g}", f"<= {asked:g}", value <= asked)

    @classmethod
    def near_one(cls, name: str, values: Iterable[float]) -> Figure:
        """Ratios that are to be 1 for everybody, within `WITHIN`."""
        values = list(values)
        near = sum(abs(value - 1) <= WITHIN for value in values)
        text = f"{near} of {len(values)} ({min(values):.2f} to {max(values):.2f})"
        return cls(name, text, f"within {WITHIN:.0%}", near == len(values))

    @property
    def row(self) -> tuple:
        """As in a table of `HEADER`."""
        return self.name, self.found, self.asked, None if self.met is None else "yes" if self.met else "no"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``cpmae evaluate card``."""
    add_folder_arguments(parser)
    add_people_arguments(parser)
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N",
        help="new faces of everybody that are looked for among the originals, from --seed on (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--faces", type=int, default=10, metavar="N",
        help="new faces of the first person that are compared with each other (default: %(default)s)",
    )  # fmt: skip


def realism_figures(rows: list[dict[str, str]], variety: dict[str, float]) -> list[Figure]:
    """From the rows of realism.tsv and ``variety`` of realism.json."""
    known = [name for name in realism.HEADER if name.startswith("power_") and any(row[name] != "nan" for row in rows)]
    column = {name: [float(row[name]) for row in rows if row[name] != "nan"] for name in realism.HEADER[2:]}
    found = [
        Figure.least("reconstruction by the VQ-VAE, worst, dB", min(column["psnr_db"]), 28),
        *(Figure.near_one(f"{name.replace('_', ' ')} cycles/mm", column[name]) for name in known),
        Figure.most("seam, worst", max(column["seam"]), 1.2),
        Figure.near_one("noise in air", column["noise_air"]),
        Figure.near_one("noise in tissue", column["noise_tissue"]),
    ]
    if variety:
        found += [
            Figure.least("variety of one person's new faces, of people's", variety["variety"], 0.7),
            Figure.least("nearest person to a new face, mm", variety["nearest_person_mm"], 1.5),
        ]
    return found


def privacy_figures(by_face: list[dict[str, str]], by_skin: list[dict[str, str]], method: str) -> list[Figure]:
    """From one row of privacy.tsv, and one of privacy_skin.tsv, for each seed."""
    mode = method.removeprefix("cpmae-")
    first, people = _counted(by_face)
    # one more than guessing would yield
    most = int(people / int(by_face[0]["gallery"]) + 1)
    seen = min(float(row["faces_found"]) for row in by_face)
    found = [
        Figure.least(f"{mode} mode: faces found, worst seed", seen, 1 if method == FACE else 7 / 8),
        Figure(f"{mode} mode: recognised first", f"{first} of {people}", f"<= {most}", first <= most),
        Figure.most(f"{mode} mode: AUC of verification, worst seed", max(float(row["auc"]) for row in by_face), 0.6),
    ]
    if by_skin:
        first, people = _counted(by_skin)
        area = max(float(row["auc"]) for row in by_skin)
        found += [
            Figure(f"{mode} mode: by skin in the same head space, first", f"{first} of {people}"),
            Figure(f"{mode} mode: by skin, AUC, worst seed", f"{area:.3f}"),
        ]
    return found


def utility_figures(row: dict[str, str], method: str) -> list[Figure]:
    """From a row of utility.tsv."""
    mode, wanted = method.removeprefix("cpmae-"), {"median": 0.995, "worst": 0.98}
    found = [Figure(f"{mode} mode: pipelines that failed", row["failures"], "0", row["failures"].startswith("0/"))]
    for name, words in (
        ("dice_brain", "brain extraction"), ("dice_plain_brain", "brain extraction without recentring"),
        ("dice_tissues", "tissues"),
    ):  # fmt: skip
        for end, asked in wanted.items():
            value, text = row[f"{name}_{end}"], f"{mode} mode: Dice of {words}, {end}"
            found.append(Figure(text, value) if value == "n/a" else Figure.least(text, float(value), asked))
    changed = float(row["brain_changed_most"])
    return [*found, Figure.most(f"{mode} mode: share of brain voxels that changed, worst", changed, 0)]


def _counted(rows: list[dict[str, str]]) -> tuple[int, int]:
    """How many came first, and of how many, over all seeds."""
    pairs = [row["rank_1"].split("/") for row in rows]
    return sum(int(pair[0]) for pair in pairs), sum(int(pair[1]) for pair in pairs)


def main(args: argparse.Namespace) -> int:
    """Measure, write card.tsv, card.json and card.html, and print."""
    recognition.model_files()  # complain of a missing package before half an hour of work
    same = [str(args.originals), "--work-dir", str(args.work_dir), "--nprocs", str(args.nprocs)]
    if args.participants_split:
        same += ["--participants-split", args.participants_split]
    if args.people:
        same += ["--people", str(args.people)]
    if args.model_weights:
        same += ["--model-weights", str(args.model_weights)]
    args.out.mkdir(parents=True, exist_ok=True)

    def measure(part, folder: Path, *words: str) -> Callable[[str], list[dict[str, str]]]:
        parser = argparse.ArgumentParser()
        part.add_arguments(parser)
        part.main(parser.parse_args([same[0], str(folder), *same[1:], *words]))
        return lambda name: read_tsv(folder / f"{name}.tsv")

    seeds = range(args.seed, args.seed + args.seeds)
    first = ("--seed", str(args.seed))
    table = measure(realism, args.out / "realism", "--methods", FACE, "--faces", str(args.faces), *first)
    variety = json.loads((args.out / "realism/realism.json").read_text())["variety"]
    figures = realism_figures(table("realism"), variety)

    tables = {
        seed: measure(
            privacy, args.out / f"privacy-{seed}", "--seed", str(seed), "--methods", FACE,
            *([HEAD] if seed == args.seed else []),
        )
        for seed in seeds
    }  # fmt: skip
    for method in (FACE, HEAD):
        rows = [[row for seed in seeds for row in tables[seed](name) if row["method"] == method]
                for name in ("privacy", "privacy_skin")]  # fmt: skip
        figures += privacy_figures(*rows, method)

    table = measure(utility, args.out / "utility", "--methods", FACE, HEAD, *first)
    for row in table("utility"):
        if row["method"] in (FACE, HEAD):
            figures += utility_figures(row, row["method"])

    from bids_cpmae.model.weightsfile import weights_version

    rows = [figure.row for figure in figures]
    settings = {
        "originals": args.originals.name, "split": args.participants_split, "seeds": list(seeds), "faces": args.faces,
        "weights": weights_version(args.model_weights),
        "versions": versions("numpy", "scipy", "torch", "antspyx"),
    }  # fmt: skip
    write_tsv(args.out / "card.tsv", HEADER, rows)
    write_json(args.out / "card.json", settings)
    section = Section("Figures", __doc__.partition("\n\n")[2], [Table("All", HEADER, rows)])
    write_page(args.out / "card.html", "Model card: what was asked, what was found", [section], settings=settings)
    print()
    print_table(HEADER, rows)
    return ExitCode.OK

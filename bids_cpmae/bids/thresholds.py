"""From measures to verdicts: the one table of thresholds.

What is said of new faces are the lines of eight `dev` heads (`docs/evaluation.md`) and of another scanner's adult in
the table of verdicts of `bids-cpmae`. Limits were set on them, on heads with other contrasts, thick slices and
small fields of view, and on planted failures: a face left in, a mask moved, a head turned. FAIL is for what must not be
shared, the original face or a changed brain in it; a new face that looks odd is REVIEW.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOK = "look at the mask and the new face before sharing"
MASK = "look at the mask"
FACE = "look at the new face"
SEED = f"{FACE}; another --random-seed draws another"


@dataclass(frozen=True)
class Threshold:
    """What one measure says.

    Attributes
    ----------
    measure : str
        Column of the table of verdicts.
    means : str
        What is wrong beyond the limits, in words.
    way_out : str
        What to do.
    why : str
        What was seen that the limits were set by.
    review_below, review_above, fail_below, fail_above : float, optional
        Beyond these, the scan is REVIEW or FAIL.
    """

    measure: str
    means: str
    way_out: str
    why: str
    review_below: float | None = None
    review_above: float | None = None
    fail_below: float | None = None
    fail_above: float | None = None

    def broken(self, value: float, *, fail: bool) -> str | None:
        """The limit that a value breaks, such as ``< 0.6``; None if it breaks none."""
        below, above = (self.fail_below, self.fail_above) if fail else (self.review_below, self.review_above)
        if below is not None and value < below:
            return f"< {below:g}"
        if above is not None and value > above:
            return f"> {above:g}"
        return None


def _region(name: str) -> Threshold:
    return Threshold(
        f"residual_{name}_mm", f"the original {name} may still be there", f"look at the {name}",
        "0 where it was left in; 0.4 and more in new faces", review_below=0.5,
    )  # fmt: skip


THRESHOLDS = (
    Threshold(
        "registration_correlation", "doubtful registration", MASK,
        "heads reach 0.67, where the view ends at the nose, to 0.99, noise 0.59", review_below=0.63, fail_below=0.5,
    ),
    Threshold(
        "brain_ml", "a brain of unusual size, so a doubtful registration", MASK,
        "grown brains have 1000 to 1900 ml, as registered 1040 to 1840", review_below=800, review_above=2000,
        fail_below=400, fail_above=2600,
    ),
    Threshold(
        "brain_signal", "little signal where the brain should be", MASK,
        "0.93 to 1.00 in all heads", review_below=0.85, fail_below=0.6,
    ),
    Threshold(
        "brain_not_finite", "values in the brain that are no numbers", "export the scan again",
        "0 in all heads", review_above=0.001, fail_above=0.05,
    ),
    Threshold(
        "brain_overlap_ml", "the mask reaches into what looks like brain", MASK,
        "at most 0.1 in all heads; 0.1 to 3 with the mask moved back by 12 mm, 9 to 23 by 25 mm",
        review_above=0.3, fail_above=5,
    ),
    Threshold(
        "face_coverage", "a part of the face lies outside the field of view", FACE,
        "0.95 to 1.00 in views of whole faces, 0.32 where the view ends above the nose", review_below=0.9,
    ),
    Threshold(
        "front_cut_cm2", "the field of view ends behind nose or lips", FACE,
        "0 to 10 in whole faces, whose nose may touch the border; 65 where nose and lips end outside", review_above=15,
    ),
    Threshold(
        "face_cut", "a part of the face was taken away before", FACE,
        "at most 0.011 in intact faces, 0.25 where another tool has cut below the nose", review_above=0.03,
    ),
    Threshold(
        "face_detail", "the face may have been blurred before", "look at the original",
        "0.77 to 1.28 in intact faces, 0.11 in blurred ones", review_below=0.5,
    ),
    Threshold(
        "mask_coverage", "the mask misses a part of the face, or two registrations disagree", LOOK,
        "0.93 to 0.97 in whole faces, the rest being too near the brain; 0.08 where the second registration had failed",
        review_below=0.8, fail_below=0.6,
    ),
    Threshold(
        "residual_face_mm", "the original face may still be there", LOOK,
        "0 where it was left in; 1.6 and more in new faces", review_below=1.0, fail_below=0.5,
    ),
    *(_region(name) for name in ("nose", "eyes", "lips", "chin", "cheeks", "forehead", "ears")),
    Threshold(
        "face_match", "fine structure of the original face is in the new one", LOOK,
        "1.00 where it was left in; 0.07 to 0.50 in new faces", review_above=0.75, fail_above=0.95,
    ),
    Threshold(
        "face_filled", "holes in the new face", SEED, "0.57 to 0.94 in new faces, half of that where half is gone",
        review_below=0.52,
    ),
    Threshold(
        "template_mm", "a new face of unusual shape", SEED,
        "1.3 to 5.1 in new faces; 2.0 to 7.6 in caricatures, drawn with thrice the spread", review_above=5.5,
    ),
    Threshold(
        "nose_mm", "a new nose of unusual size", SEED,
        "22 to 37 in new faces, 15 where the view ends at the nose", review_below=10, review_above=50,
    ),
    Threshold("skin_roughness", "rough skin", SEED, "0.19 to 0.36 in new faces", review_above=0.6),
    Threshold("seam", "a visible border of the mask", FACE, "0.86 to 1.25, 1.4 in slices of 5 mm", review_above=1.5),
    Threshold(
        "noise_ratio", "noise that does not fit the scan", FACE, "0.64 to 1.23", review_below=0.2, review_above=2.5,
    ),
)  # fmt: skip


def broken(measures: dict[str, float], *, fail: bool) -> list[str]:
    """What the measures break, in words: what it means, the number, the limit and what to do."""
    found = []
    for threshold in THRESHOLDS:
        value = measures.get(threshold.measure)
        limit = None if value is None else threshold.broken(value, fail=fail)
        if limit:
            words = f"{threshold.means} ({threshold.measure} {value:.3g} {limit})"
            found.append(f"{words}; {threshold.way_out}")
    return found

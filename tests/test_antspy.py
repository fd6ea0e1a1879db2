"""ANTs without its plots and statistics: quick to import, and whole where it matters."""

import subprocess
import sys

CODE = """
import sys
from bids_cpmae.antspy import UNUSED, load_ants

ants = load_ants()
assert ants is load_ants() is sys.modules["ants"]
slow = {"matplotlib", "statsmodels", "sklearn", "scipy.stats"} & set(sys.modules)
assert not slow, slow
assert not set(UNUSED) & set(sys.modules)
for name in ("registration", "apply_transforms", "apply_transforms_to_points", "n4_bias_field_correction", "atropos"):
    assert callable(getattr(ants, name)), name

# whoever wants the rest still gets it
import ants.learn
assert callable(ants.learn.eig_seg)
"""


def test_ants_comes_without_what_is_slow_and_unused():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr

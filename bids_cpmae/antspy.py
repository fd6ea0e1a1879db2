"""antspyx without the parts of it that nothing here uses, which take longer to import than all others."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from types import ModuleType

# plots, statistics and augmentation: with them come matplotlib, statsmodels and scikit-learn, 1.2 of 1.8 seconds
UNUSED = ("ants.learn", "ants.plotting", "ants.deeplearn", "ants.math.quantile")


def load_ants() -> ModuleType:
    """The package ``ants``; as a whole only where it was imported before, and without `UNUSED` otherwise.

    It reckons in one thread unless the environment says otherwise: it counts them once a process, and sums in the order
    in which they end.
    """
    os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")
    if "ants" not in sys.modules:
        with _empty(UNUSED):
            import ants  # noqa: F401
    return sys.modules["ants"]


class _Empty(ModuleType):
    """A module of which every name is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def _empty(names: tuple[str, ...]):
    """Empty modules in place of those named, for as long as it lasts."""
    stand_ins = {name: _Empty(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            sys.modules.pop(name, None)

"""Threads of one process; NumPy, SciPy and PyTorch reckon beside one another in them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def threads() -> int:
    """Threads that this process may reckon in: as many as PyTorch's."""
    import torch

    return torch.get_num_threads()


def side_by_side(*calls: Callable[[], object]) -> list:
    """What calls return, in their order, each made in a thread of its own where this process may have several.

    Of no use where one spends its time in `edt`, which lets no other thread of Python go on.
    """
    if threads() == 1:
        return [call() for call in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        return [job.result() for job in [pool.submit(call) for call in calls]]

"""The training loop both networks share: resumable, with a progress line and a CSV of losses."""

from __future__ import annotations

import copy
import csv
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

CHECKPOINT_SECONDS = 120
REPORT_STEPS, CHECK_STEPS = 25, 250
SPIKE = 6.0


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up to ``peak``, then a cosine down to a twentieth of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    along = (step - warmup) / max(1, steps - warmup)
    return peak * (0.05 + 0.475 * (1 + math.cos(math.pi * min(1.0, along))))


class Batches(Dataset):
    """What a function of the step number draws, for the workers of a `DataLoader`."""

    def __init__(self, draw: Callable[[int], Any]) -> None:
        self.draw = draw

    def __getitem__(self, step: int) -> Any:
        return self.draw(step)


def train(
    model: nn.Module,
    losses: Callable[[int, Any], dict[str, torch.Tensor]],
    *,
    batches: Callable[[int], Any],
    out: Path,
    steps: int,
    peak_rate: float,
    warmup: int = 80,
    device: str = "cpu",
    average: float = 0.0,
    workers: int = 0,
    check: Callable[[Any], dict[str, float]] | None = None,
) -> nn.Module:
    """Train ``model`` until ``steps``, going on from the checkpoint in ``out`` if there is one.

    Parameters
    ----------
    model : nn.Module
    losses : callable
        Step number and batch to named scalar losses; the one called ``loss`` is minimised. Random state must follow
        from the step number, so that a resumed run sees what an unbroken one would have seen.
    batches : callable
        Step number to the batch of that step, likewise.
    out : Path
        Folder for ``checkpoint.pt`` and ``losses.csv``.
    steps : int
    peak_rate : float
        Peak learning rate of AdamW.
    average : float
        Decay of the moving average of the weights that is returned; 0 returns the last weights.
    workers : int
        Processes that draw batches ahead; 0 draws them in this one, on its device.
    check : callable, optional
        What the averaged weights achieve on data that is not learned from, by name: written to ``held-out.csv`` every
        `CHECK_STEPS` steps and at the end.

    Returns
    -------
    nn.Module
        ``model``, holding the averaged weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(model.parameters(), peak_rate, betas=(0.9, 0.99), weight_decay=0.01)
    mean = {name: value.detach().clone() for name, value in model.state_dict().items()}
    first = 0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        mean, first = state["mean"], state["step"]
    saved, began = time.monotonic(), time.monotonic()
    sums: dict[str, torch.Tensor] = {}
    usual = 0.0
    # forked, for what draws need not be picklable
    feed = DataLoader(Batches(batches), batch_size=None, sampler=range(first, steps), num_workers=workers,
                      multiprocessing_context="fork" if workers else None)  # fmt: skip
    for step, batch in zip(range(first, steps), feed):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, peak_rate, warmup)
        values = losses(step, batch)
        optimiser.zero_grad(set_to_none=True)
        values["loss"].backward()
        norm = float(nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        # one freak batch must not throw the weights off
        if norm < SPIKE * usual or (step < first + warmup and math.isfinite(norm)):
            optimiser.step()
        if math.isfinite(norm):
            usual = norm if usual == 0 else usual + 0.05 * (min(norm, SPIKE * usual) - usual)
        decay = min(average, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                mean[name].lerp_(value.detach(), 1 - decay)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value.detach() / REPORT_STEPS
        if (step + 1) % REPORT_STEPS == 0:
            _report(out / "losses.csv", step + 1, steps, sums, (time.monotonic() - began) / (step + 1 - first))
            sums = {}
        if check and ((step + 1) % CHECK_STEPS == 0 or step + 1 == steps):
            averaged = copy.deepcopy(model)
            averaged.load_state_dict(mean)
            found = check(averaged)
            print("held out: " + _line(found), flush=True)
            _write_row(out / "held-out.csv", step + 1, found)
        if time.monotonic() - saved > CHECKPOINT_SECONDS or step + 1 == steps:
            partial = checkpoint.with_suffix(".partial")
            torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "mean": mean,
                        "step": step + 1}, partial)  # fmt: skip
            os.replace(partial, checkpoint)
            saved = time.monotonic()
    model.load_state_dict(mean)
    return model


def _report(path: Path, step: int, steps: int, values: dict[str, torch.Tensor], seconds: float) -> None:
    _write_row(path, step, values)
    left = (steps - step) * seconds / 60
    print(f"step {step}/{steps}  {_line(values)}  {seconds:.2f} s/step  {left:.0f} min left", flush=True)


def _line(values: dict) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())


def _write_row(path: Path, step: int, values: dict) -> None:
    fresh = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(["step", *values])
        writer.writerow([step, *(f"{float(value):.5g}" for value in values.values())])

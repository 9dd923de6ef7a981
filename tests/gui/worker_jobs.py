"""Jobs for the worker's tests; the child process imports them by name."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from napari_seg3d.events import Event, Finished, Progress, Saved, Step, Warned, job


@job
def count(n: int, pause_s: float = 0.0, every: int = 10) -> Iterator[Event]:
    for i in range(n):
        yield Progress("counting", i, n)
        if i % every == 0:
            yield Saved(Path(str(i)), "number")
        time.sleep(pause_s)
    yield Finished(n)


@job
def steps_and_progress(n: int) -> Iterator[Event]:
    for i in range(n):
        yield Progress(f"step {i}", i, n)
        yield Step(i, 0, 1.0, 0.1, i / 10)
    yield Finished(n)


@job
def out_of_memory() -> Iterator[Event]:
    yield Progress("allocating", 0)
    raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")


def raises_without_being_a_job() -> Iterator[Event]:
    yield Progress("working", 0)
    raise ValueError("three")


def ends_without_result() -> Iterator[Event]:
    yield Progress("working", 0)


@job
def unsendable() -> Iterator[Event]:
    yield Warned("before")
    yield Finished(lambda: 1)


@job
def saves_when_stopped(marker: Path, heartbeat: Path | None = None) -> Iterator[Event]:
    try:
        for i in range(100_000):
            if heartbeat is not None:
                heartbeat.write_text(str(os.getpid()))
            yield Progress("working", i)
            time.sleep(0.02)
    finally:
        marker.write_text("saved")


@job
def cannot_save(n: int = 100_000) -> Iterator[Event]:
    try:
        for i in range(n):
            yield Progress("working", i)
            time.sleep(0.02)
    finally:
        raise OSError("disk full")


@job
def deaf(seconds: float) -> Iterator[Event]:
    yield Progress("busy", 0)
    time.sleep(seconds)
    yield Finished()


@job
def dies(signal_number: int = signal.SIGKILL) -> Iterator[Event]:
    yield Warned("alive")
    time.sleep(0.3)
    os.kill(os.getpid(), signal_number)
    time.sleep(10)
    yield Finished()


@job
def facts() -> Iterator[Event]:
    """What a job finds around it."""
    yield Progress("looking", 0)
    yield Finished(
        {
            "pid": os.getpid(),
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "policy": os.sched_getscheduler(0),
            "switch_s": sys.getswitchinterval(),
            "filters": list(warnings.filters),
            "modules": sorted(sys.modules),
            "threads": os.environ.get("OMP_NUM_THREADS"),
        }
    )


@job
def torch_threads() -> Iterator[Event]:
    import torch

    before = torch.get_num_threads()
    yield Progress("torch is here", 0)
    yield Finished((before, torch.get_num_threads()))

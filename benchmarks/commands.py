"""The public commands, as a benchmark runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import NamedTuple


def seg3d(*arguments: str) -> str:
    """Run a command of napari-seg3d and return what it printed; its progress goes to the terminal."""
    command = [sys.executable, "-m", "napari_seg3d", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


class Measured(NamedTuple):
    """What a command printed, how long it took, and the most memory it held."""

    printed: str
    seconds: float
    peak_mb: float


def measured(*arguments: str, runner: tuple[str, ...] = ("-m", "napari_seg3d")) -> Measured:
    """Run a command of napari-seg3d as `seg3d`, and measure it; only where the system counts (not on Windows).

    `runner` is what Python is started with, where it is not the package itself.
    """
    command = [sys.executable, *runner, *arguments]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, printed)
    # Linux counts in kilobytes, macOS in bytes.
    per_mb = 1024 if sys.platform == "linux" else 1024**2
    return Measured(printed, time.monotonic() - began, used.ru_maxrss / per_mb)

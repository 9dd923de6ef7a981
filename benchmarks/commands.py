"""The public commands, as a benchmark runs them."""

from __future__ import annotations

import subprocess
import sys


def seg3d(*arguments: str) -> str:
    """Run a command of napari-seg3d and return what it printed; its progress goes to the terminal."""
    command = [sys.executable, "-m", "napari_seg3d", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

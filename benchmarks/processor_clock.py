"""A clock that counts this process's own processor time: other work on the machine then changes no training.

Also napari-seg3d itself with that clock::

    python benchmarks/processor_clock.py train DATA --output RUN --budget 20m --threads 1
"""

from __future__ import annotations

import queue  # noqa: F401 - it and threading keep the true clock for their time limits
import sys
import threading  # noqa: F401
import time


def count_processor_time() -> None:
    """Let budgets of this process be processor time; to be called before anything of napari-seg3d is imported."""
    time.monotonic = time.process_time


if __name__ == "__main__":
    count_processor_time()
    from napari_seg3d.cli import main

    sys.exit(main())

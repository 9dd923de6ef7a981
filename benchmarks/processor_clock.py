"""napari-seg3d with a clock that counts its own processor time: other work on the machine then changes no result.

Used as the program itself::

    python benchmarks/processor_clock.py train DATA --output RUN --budget 20m --threads 1
"""

from __future__ import annotations

import queue  # noqa: F401 - it and threading keep the true clock for their time limits
import sys
import threading  # noqa: F401
import time

time.monotonic = time.process_time

from napari_seg3d.cli import main  # noqa: E402 - after the clock, which its parts may take hold of

if __name__ == "__main__":
    sys.exit(main())

"""How long it takes until something happens: importing the package, the command's help, and napari for comparison.

Promise: importing `napari_seg3d` takes at most 0.3 s beyond starting Python, and loads no torch; `napari-seg3d --help`
takes at most 1 s. Each command is started anew, several times; caches of the file system are warm.

    python benchmarks/startup.py [--runs 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from machine import describe

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import napari_seg3d": ["-c", "import napari_seg3d"],
    "open_dataset ready": ["-c", "from napari_seg3d import open_dataset"],
    "napari-seg3d --help": ["-m", "napari_seg3d", "--help"],
    "import napari": ["-c", "import napari"],
    "import torch": ["-c", "import torch"],
}
IMPORT_S, HELP_S = 0.3, 1.0


def seconds(arguments: list[str], runs: int) -> list[float]:
    """Wall-clock times of starting Python with these arguments, after one run that warms the caches."""
    times = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begin)
    return times[1:]


def main() -> int:
    """Print the table; 1 if a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    print(describe())
    medians = {}
    for name, arguments in COMMANDS.items():
        times = seconds(arguments, runs)
        medians[name] = statistics.median(times)
        print(f"{name:22} median {medians[name]:.3f} s   min {min(times):.3f}   max {max(times):.3f}")
    import_s = medians["import napari_seg3d"] - medians["python -c pass"]
    help_s = medians["napari-seg3d --help"]
    print(f"import beyond Python: {import_s:.3f} s (promise {IMPORT_S}); help: {help_s:.3f} s (promise {HELP_S})")
    return int(import_s > IMPORT_S or help_s > HELP_S)


if __name__ == "__main__":
    sys.exit(main())

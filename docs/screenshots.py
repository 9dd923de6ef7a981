"""Make every picture of the documentation: run the demonstration, keep its screenshots and figures, go on with others.

python docs/screenshots.py OUTPUT [--budget 110s]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from napari_seg3d.gui.demo import screenshots

#: Name in the documentation -> file that the demonstration leaves.
PICTURES = {
    "data.png": "screenshots/data.png",
    "train.png": "screenshots/train.png",
    "plan.png": "screenshots/plan.png",
    "predict.png": "screenshots/predict.png",
    "review.png": "screenshots/review.png",
    "case.png": "figures/brain_*.png",
}
#: Pictures of the correction bench, taken afterwards on the study of the demonstration.
BENCH = ("step", "tools", "queue", "learn", "planes", "images", "raters")


def main() -> int:
    """Run the demonstration without a window and copy its pictures; 1 if one is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--budget", help="time for the training; default: that of the demonstration")
    choices = parser.parse_args()
    choices.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder) / "demo"
        command = [sys.executable, "-m", "napari_seg3d", "demo", "--headless", "--output", str(demo)]
        subprocess.run([*command, *(["--budget", choices.budget] if choices.budget else [])], check=True)
        missing = []
        for name, pattern in PICTURES.items():
            found = sorted(demo.glob(pattern))
            if found:
                shutil.copy(found[0], choices.output / name)
            else:
                missing.append(name)
        report = json.loads((demo / "report.json").read_text(encoding="utf-8"))
        screenshots(demo / "study", report["held_out"], choices.output, BENCH)
    if missing:
        print(f"The demonstration left no {', '.join(missing)}.", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())

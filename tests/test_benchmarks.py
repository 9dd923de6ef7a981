"""The benchmarks themselves take long; that each can be started is checked here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks"
#: What the others import.
SHARED = {"commands.py", "machine.py", "processor_clock.py", "review_window.py"}
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name not in SHARED)


#: Asks each script for its help, in one process: most of them load napari or torch.
ASK = """
import contextlib, io, json, runpy, sys

said = {}
for script in sys.argv[2:]:
    sys.argv = [script, "--help"]
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        said[script] = (end.code, out.getvalue())
print(json.dumps(said))
"""


def test_each_benchmark_tells_how_it_is_run() -> None:
    scripts = [str(FOLDER / script) for script in SCRIPTS]
    # A script finds the others beside it.
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, sys.argv[1]){ASK}", str(FOLDER), *scripts]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert [said[script][0] for script in scripts] == [0] * len(scripts)
    for script in SCRIPTS:
        assert said[str(FOLDER / script)][1].startswith(f"usage: {script}")


def test_each_benchmark_stands_in_the_table() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [script for script in SCRIPTS if f"]({script})" not in page] == []

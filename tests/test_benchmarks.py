"""The benchmarks themselves take long; that each can be started is checked here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
#: What the others import.
SHARED = {"commands.py", "machine.py", "processor_clock.py"}
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name not in SHARED)


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_benchmark_tells_how_it_is_run(script: str) -> None:
    run = subprocess.run([sys.executable, FOLDER / script, "--help"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"usage: {script}")


def test_each_benchmark_stands_in_the_table() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [script for script in SCRIPTS if f"]({script})" not in page] == []

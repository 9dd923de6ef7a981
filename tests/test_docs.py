"""What the documentation shows must work: examples run, commands exist, links lead somewhere."""

from __future__ import annotations

import doctest
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from napari_seg3d.cli import make_parser
from napari_seg3d.model.plan import settings_help

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
PAGES = [page for page in PAGES if "generated" not in page.parts and "_build" not in page.parts]
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```", flags=re.MULTILINE | re.DOTALL)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of one language on a page."""
    return [m["code"] for m in BLOCK.finditer(page.read_text(encoding="utf-8")) if m["language"] == language]


@every_page
def test_python_examples_run_and_give_what_they_say(page: Path) -> None:
    # One session a page: later blocks build on earlier ones.
    text = "\n".join(block for block in blocks(page, "python") if ">>>" in block)
    example = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    runner.run(example, out=report.append)
    assert runner.failures == 0, "".join(report)


@every_page
def test_python_without_answers_is_at_least_python(page: Path) -> None:
    for block in blocks(page, "python"):
        if ">>>" not in block:
            compile(block, str(page), "exec")


def shown_commands() -> list[str]:
    """Every command line of napari-seg3d in a shell block, continued lines joined."""
    lines = "\n".join(block for page in PAGES for block in blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return sorted({line.partition(" #")[0].strip() for line in lines if line.startswith("napari-seg3d ")})


@pytest.mark.parametrize("line", shown_commands())
def test_commands_are_understood(line: str) -> None:
    make_parser().parse_args(shlex.split(line)[1:])


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text):
        # Screenshots are made when the documentation is built.
        if "screenshots/" not in target:
            assert (page.parent / target).exists(), target


def test_pages_from_the_code_name_every_setting_and_command() -> None:
    spec = importlib.util.spec_from_file_location("from_code", ROOT / "docs" / "_ext" / "from_code.py")
    assert spec is not None
    assert spec.loader is not None
    from_code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(from_code)
    settings = "\n".join(from_code.plan_page())
    assert all(f"| `{name.rsplit('.', 1)[-1]}` |" in settings for name in settings_help())
    commands = "\n".join(from_code.commands_page())
    assert all(f"## {name}\n" in commands for name in ("demo", "train", "predict", "evaluate", "networks"))

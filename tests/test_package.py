"""What is built and installed: the wheel, the manifest, the dependencies, and what importing and calling may not do."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.build import build_wheel
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "napari_seg3d"
MODULES = sorted(PACKAGE.rglob("*.py"))
BINDINGS = {"pyqt5", "pyqt6", "pyside2", "pyside6"}


def run_python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python that knows nothing of this process, away from the source tree."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A freshly built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    before = Path.cwd()
    os.chdir(ROOT)  # where a build front end starts the back end
    try:
        return folder / build_wheel(str(folder))
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def unpacked_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as an installation would lay them."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


# ------------------------------------------------------------------------------------------------ wheel and manifest


def test_wheel_holds_the_package_and_its_data_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix in {".py", ".json", ".yaml", ".svg"}]
    expected = {path.relative_to(ROOT).as_posix() for path in data if "__pycache__" not in path.parts}
    assert {"napari_seg3d/napari.yaml", "napari_seg3d/py.typed"} | expected <= names
    assert {name.split("/")[0] for name in names} == {"napari_seg3d", "napari_seg3d-0.1.0.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_manifest_has_one_home(wheel: Path) -> None:
    link = ROOT / "napari.yaml"
    assert link.is_symlink()
    assert link.resolve() == PACKAGE / "napari.yaml"
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("napari_seg3d/napari.yaml") == link.read_bytes()


def test_installed_manifest_is_valid_and_names_only_what_exists(tmp_path: Path) -> None:
    done = run_python("-m", "npe2", "validate", "napari-seg3d", "--imports", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_manifest_from_the_wheel_is_valid_and_names_only_what_exists(unpacked_wheel: Path) -> None:
    # The unpacked wheel comes first on the path, before the installation these tests run from.
    where = "import napari_seg3d; print(napari_seg3d.__file__)"
    environment = {"PYTHONPATH": str(unpacked_wheel)}
    assert str(unpacked_wheel) in run_python("-c", where, cwd=unpacked_wheel, **environment).stdout
    done = run_python("-m", "npe2", "validate", "napari-seg3d", "--imports", cwd=unpacked_wheel, **environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_entry_points_are_declared(unpacked_wheel: Path) -> None:
    text = (unpacked_wheel / "napari_seg3d-0.1.0.dist-info" / "entry_points.txt").read_text()
    assert "[console_scripts]\nnapari-seg3d = napari_seg3d.cli:main" in text
    assert "[napari.manifest]\nnapari-seg3d = napari_seg3d:napari.yaml" in text


# ------------------------------------------------------------------------------------------------ dependencies


def test_no_qt_binding_among_the_hard_dependencies(project: dict[str, list[str]]) -> None:
    for line in project["dependencies"]:
        requirement = Requirement(line)
        assert requirement.name.lower() not in BINDINGS
        # An extra of napari would bring a binding through the back door.
        assert not requirement.extras


def test_extras_bring_what_they_are_named_after(project: dict[str, dict[str, list[str]]]) -> None:
    extras = project["optional-dependencies"]
    assert set(extras) >= {"pyqt5", "pyqt6", "pyside6", "all", "dicom", "docs", "test"}
    assert Requirement(extras["pyqt5"][0]) == Requirement("napari[pyqt5]>=0.9,<0.10")
    assert "pyqt5" in Requirement(extras["all"][0]).extras


@pytest.mark.parametrize(
    ("name", "floor"), [("torch", "2.10"), ("monai", "1.6.1"), ("pydicom", "3.0.2"), ("nibabel", "5.4.2")]
)
def test_versions_with_known_holes_are_excluded(project: dict[str, list[str]], name: str, floor: str) -> None:
    every = [*project["dependencies"], *project["optional-dependencies"]["dicom"]]
    requirement = next(r for r in map(Requirement, every) if r.name == name)
    assert f">={floor}" in str(requirement.specifier)


def test_constraints_fit_every_requirement(project: dict[str, list[str]]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    every = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    for requirement in map(Requirement, every):
        # PySide6 is tried by hand only, and the package itself is what is installed.
        if requirement.name in {"napari-seg3d", "PySide6"}:
            continue
        assert requirement.name in pinned, requirement
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_everything_imported_is_declared(project: dict[str, list[str]]) -> None:
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "test" for line in lines]
    declared = {Requirement(line).name.lower() for line in [*project["dependencies"], *extras]}
    providers = importlib.metadata.packages_distributions()
    for path in MODULES:
        for name in imported_packages(path) - set(sys.stdlib_module_names) - {"napari_seg3d"}:
            provider = {provider.lower() for provider in providers.get(name, [name])}
            assert provider & declared, f"{path.relative_to(ROOT)} imports {name}"


def imported_packages(path: Path) -> set[str]:
    """The top-level names that a file imports from outside its own package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_version_is_told_alike_everywhere(project: dict[str, str]) -> None:
    import napari_seg3d

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.search(r"^## (\d+\.\d+\.\d+)", changelog, flags=re.MULTILINE)
    assert latest is not None
    assert latest[1] == project["version"] == napari_seg3d.__version__ == importlib.metadata.version("napari-seg3d")


# ------------------------------------------------------------------------------------------------ what importing loads

LOADED = "import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
HEAVY = {"torch", "monai"}
WINDOW = {"napari", "qtpy", "PyQt5", "PyQt6", "PySide6", "superqt", "pyqtgraph", "vispy"}


def loaded_after(code: str, cwd: Path) -> set[str]:
    done = run_python("-c", f"{code}\n{LOADED}", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_neither_torch_nor_qt(tmp_path: Path) -> None:
    assert not loaded_after("import napari_seg3d", tmp_path) & (HEAVY | WINDOW | {"matplotlib", "scipy", "skimage"})


def test_everyday_nouns_are_listed_without_loading_them(tmp_path: Path) -> None:
    code = "import napari_seg3d; assert {'open_dataset', 'train', 'predict', 'compare'} <= set(dir(napari_seg3d))"
    assert not loaded_after(code, tmp_path) & (HEAVY | WINDOW)


def test_opening_and_comparing_load_neither_torch_nor_qt(tmp_path: Path) -> None:
    rooms = ("volumes", "cases", "comparison", "correction")
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] in rooms
    ]
    assert not loaded_after("\n".join(f"import {name}" for name in modules), tmp_path) & (HEAVY | WINDOW)


def test_learning_knows_no_window(tmp_path: Path) -> None:
    code = "import napari_seg3d.training.loop, napari_seg3d.prediction.predict, napari_seg3d.cli"
    assert not loaded_after(code, tmp_path) & WINDOW


def test_help_of_the_command_loads_neither_torch_nor_qt(tmp_path: Path) -> None:
    code = "from napari_seg3d.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert not loaded_after(code, tmp_path) & (HEAVY | WINDOW)


def test_without_a_qt_binding_the_command_says_which_extra_to_install(tmp_path: Path) -> None:
    # A module that is None in sys.modules is one that cannot be imported.
    code = (
        "import sys\n"
        "for name in ('PyQt5', 'PyQt6', 'PySide2', 'PySide6'): sys.modules[name] = None\n"
        "from napari_seg3d.cli import main\n"
        "sys.exit(main([]))"
    )
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 1
    assert "napari-seg3d[pyqt6]" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------ what code may not do


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file with the dotted name of what is called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> object:
    values = [k.value for k in call.keywords if k.arg == name]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def is_dangerous(name: str, call: ast.Call) -> bool:
    """Whether a call could run code that came with a file."""
    loads_weights = name == "torch.load" or "weights_only" in {k.arg for k in call.keywords}
    return (
        name in {"eval", "exec", "os.system", "os.popen", "torch.jit.load", "yaml.load", "yaml.unsafe_load"}
        or name.split(".")[0] in {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
        or name.rsplit(".", 1)[-1] in {"ConfigParser", "extractall"}
        or (loads_weights and keyword(call, "weights_only") is not True)
        or keyword(call, "allow_pickle") is True
        or keyword(call, "shell") is True
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_code_from_files_is_run(path: Path) -> None:
    assert [f"line {call.lineno}: {name}" for name, call in calls(path) if is_dangerous(name, call)] == []


@pytest.mark.parametrize(
    "line",
    [
        "eval(x)",
        "pickle.load(f)",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=safe)",
        "np.load(f, allow_pickle=True)",
        "subprocess.run(x, shell=True)",
        "torch.jit.load(f)",
        "yaml.load(f)",
    ],
)
def test_dangerous_calls_are_seen(line: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(line)
    assert [is_dangerous(name, call) for name, call in calls(path)] == [True]


def test_safe_calls_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "torch.load(f, weights_only=True)\nnp.load(f)\nyaml.safe_load(f)\nsubprocess.run([x])\nmodel.eval()"
    )
    assert not any(is_dangerous(name, call) for name, call in calls(path))


def test_every_thing_lives_in_a_room_with_a_name() -> None:
    assert not [path for path in MODULES if path.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_exceptions_from_the_rules_are_named() -> None:
    blanket = re.compile(r"#\s*(noqa(?!:)|type:\s*ignore(?!\[))")
    sources = [*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    found = [path.name for path in sources if path != Path(__file__) and blanket.search(path.read_text("utf-8"))]
    assert found == []

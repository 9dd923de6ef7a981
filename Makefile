# napari-seg3d: every target does its own set-up, on a fresh Debian or Ubuntu machine as well.
#
#   make demo     a made-up study through the whole house: train, predict, compare, report
#   make window   open napari with the Seg3D panels
#   make test     all tests; those of the window on PyQt5 and on PyQt6
#   make lint     style, docstrings, import rules      make types    mypy
#   make docs     the documentation, with fresh screenshots
#   make bench DATA=/path/to/studies    the benchmarks (see benchmarks/README.md)
#   make clean    remove what the targets made, but for the virtual environment
#
# Choices:  make demo PYTHON=/path/to/python3.12
#           make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu    (no CUDA packages: a few GB less)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?=
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
# Windows that nobody looks at open on a screen of their own.
SCREEN := xvfb-run -a -s '-screen 0 1920x1080x24'

# What Qt, OpenGL and the virtual screen need, found from a minimal Debian 12 installation.
SYSTEM_PACKAGES := xvfb xauth libegl1 libgl1 libdbus-1-3 libfontconfig1 libglib2.0-0 libxkbcommon-x11-0 \
	libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0

# `$(call apt_install,packages)`: as root, or through sudo without a question where nobody can answer it.
define apt_install
	if [ "$$(id -u)" = 0 ]; then as_root=""; \
	elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then as_root="sudo"; \
	else echo "These system packages are missing, and neither root nor sudo is at hand. Please have them installed:" >&2; \
		echo "    apt-get install" $(1) >&2; exit 1; fi; \
	echo "Installing the system packages" $(1); \
	$$as_root apt-get update -qq </dev/null; \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) </dev/null >/dev/null
endef

# `$(call find_python)`: sets the shell variable `python` to the first usable interpreter, or to nothing.
define find_python
	python=""; \
	for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
		if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
			>/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done
endef

.PHONY: help
help:
	@sed -n '/^#   make/s/^#   //p' Makefile

# ---------------------------------------------------------------------------------------------------- set-up

$(VENV)/.system: Makefile
	@mkdir -p $(VENV)
	@if command -v dpkg-query >/dev/null; then \
		missing=""; \
		for package in $(SYSTEM_PACKAGES); do \
			[[ "$$(dpkg-query -W -f='$${Status}\n' "$$package" "$${package}t64" 2>/dev/null || true)" \
				== *"install ok installed"* ]] || missing="$$missing $$package"; \
		done; \
		if [ -n "$$missing" ]; then $(call apt_install,$$missing); fi; \
	else \
		echo "Not a Debian or Ubuntu system: if Qt cannot start, install what corresponds to $(SYSTEM_PACKAGES)"; \
	fi
	@touch $@

$(VENV)/.python: | $(VENV)/.system
	@$(call find_python); \
	if [ -z "$$python" ] && command -v apt-get >/dev/null; then \
		$(call apt_install,python3 python3-venv); $(call find_python); \
	fi; \
	if [ -z "$$python" ]; then \
		echo "napari-seg3d needs Python 3.11, 3.12 or 3.13 with its venv module, and none was found on the PATH." \
			"Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	[ -x $(BIN)/python ] || { echo "Making $(VENV) with $$($$python --version)"; "$$python" -m venv $(VENV); }
	@touch $@

# `$(call pip_install,extras)`
define pip_install
	@echo "Installing napari-seg3d[$(1)] into $(VENV) with the versions of constraints.txt"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt pip </dev/null
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[$(1)]' </dev/null
	@touch $@
endef

$(VENV)/.use: pyproject.toml constraints.txt | $(VENV)/.python
	$(call pip_install,all)

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/.python
	$(call pip_install,all$(comma)pyqt6$(comma)test)
	@touch $(VENV)/.use

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.python
	$(call pip_install,all$(comma)pyqt6$(comma)docs)
	@touch $(VENV)/.use

comma := ,

.PHONY: setup
setup: $(VENV)/.test

# ---------------------------------------------------------------------------------------------------- use

.PHONY: demo
demo: $(VENV)/.use
	@if [ -n "$${DISPLAY:-}$${WAYLAND_DISPLAY:-}" ]; then $(BIN)/napari-seg3d demo --output demo-output; \
	else $(SCREEN) $(BIN)/napari-seg3d demo --headless --output demo-output; fi

.PHONY: window
window: $(VENV)/.use
	@$(BIN)/napari-seg3d

# ---------------------------------------------------------------------------------------------------- checks

# Two halves beside each other, which take about as long: the window on PyQt5 with the rooms that need no network, and the
# window on PyQt6 with those that do. Both run even if one fails, so that one run tells everything. pytest-xvfb brings
# the screens.
NETWORKS := tests/model tests/prediction tests/training

.PHONY: test
test: $(VENV)/.test
	@failed=""; others=$$(mktemp); \
	QT_API=pyqt6 PYTEST_QT_API=pyqt6 $(BIN)/python -m pytest tests/gui $(NETWORKS) $(PYTEST_ARGS) \
		</dev/null >"$$others" 2>&1 & other=$$!; \
	QT_API=pyqt5 PYTEST_QT_API=pyqt5 $(BIN)/python -m pytest $(NETWORKS:%=--ignore=%) $(PYTEST_ARGS) </dev/null \
		|| failed="PyQt5 and the rooms without networks"; \
	wait $$other || failed="$${failed:+$$failed; }PyQt6 and the networks"; \
	echo; echo "The window on PyQt6, and the networks:"; cat "$$others"; rm -f "$$others"; \
	if [ -n "$$failed" ]; then echo "Failed: $$failed" >&2; exit 1; fi

.PHONY: lint
lint: $(VENV)/.test
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/lint-imports

.PHONY: types
types: $(VENV)/.test
	$(BIN)/mypy

# ---------------------------------------------------------------------------------------------------- docs and benchmarks

.PHONY: docs
docs: $(VENV)/.docs
	QT_API=pyqt6 $(SCREEN) $(BIN)/python docs/screenshots.py docs/screenshots
	$(BIN)/sphinx-build --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "The documentation begins at docs/_build/html/index.html"

# DATA is a folder that holds the studies Task04_Hippocampus and BraTS2013; without it their benchmarks are left out.
# NNUNET is a Python with nnunetv2, to be measured beside ours.
DATA ?=
NNUNET ?=

.PHONY: bench
bench: $(VENV)/.test
	$(BIN)/python benchmarks/startup.py
	$(SCREEN) $(BIN)/python benchmarks/round_trip.py
	$(SCREEN) $(BIN)/python benchmarks/window.py
	$(BIN)/python benchmarks/kills.py
	$(BIN)/python benchmarks/ranks.py
ifneq ($(DATA),)
	$(BIN)/python benchmarks/brats.py $(DATA)/BraTS2013
	$(BIN)/python benchmarks/hippocampus.py $(DATA)/Task04_Hippocampus
	$(BIN)/python benchmarks/throughput.py $(DATA)/Task04_Hippocampus $(if $(NNUNET),--nnunet-python $(NNUNET))
endif

.PHONY: clean
clean:
	rm -rf build dist demo-output docs/_build docs/screenshots docs/reference/generated
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage htmlcov
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Two commands do everything on a machine with Python 3.11 or newer, pip, venv and make:
#
#   make quickstart    set up .venv and run the main job on bundled images
#   make test          set up .venv for development, check style, types and layers, and run all tests
#
# Further: make test-fast (the checks, and the tests that are not slow), make check (no tests), make docs (the pages as a site, in site/), make package (sdist and wheel in dist/,
# tried in a clean environment), make clean (caches and build outputs), make distclean (.venv too).
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# constraints.txt pins torch and torchvision together. They must come from one build: a CPU-only torch (+cpu)
# beside a torchvision built for CUDA fails on import. To have the CPU-only pair, give pip an index that has both
# of them through PIP_ARGS.
PIP_ARGS ?=
PYTEST_ARGS ?=
TEST_WORKERS ?= auto
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt

.DELETE_ON_ERROR:
.PHONY: quickstart test test-fast check format docs package clean distclean

quickstart: $(VENV)/.installed
	$(BIN)/hwprune quickstart

# Tests run side by side, each with one thread: two threads of two tests on two cores wait for each other.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

# For working on something: what takes seconds for each test. CI runs all of them.
test-fast: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --maxprocesses 8 --dist worksteal \
	  -m 'not slow and not workflows and not fuzz' $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Needs no torch: the reference is made from the source.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

package:
	PYTHON=$(PYTHON) PIP_ARGS="$(PIP_ARGS)" .ci/package

# The stamp files say that the environment is complete for this pyproject.toml and these versions.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: mkdocs.yml constraints.txt | $(VENV)/bin/python
	$(INSTALL) mkdocs-material 'mkdocstrings[python]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'hwprune needs Python 3.11 or newer, and `$(PYTHON)` is not:' >&2; \
	  $(PYTHON) --version >&2 || true; \
	  echo 'Name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# make run        set up, then ask the built-in pair a question
# make test       set up, then run the tests (make test-all: the heavy ones too)
# make check      format, lint, import contracts, types
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= How do I pull a model?

.PHONY: run test test-all check clean

$(VENV)/.run: pyproject.toml setup.py packaging/constraints.txt $(wildcard daemon/gemmarunner/native/src/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || { echo "Creating $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@echo "Installing (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c packaging/constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c packaging/constraints.txt -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c packaging/constraints.txt -e '.[dev]'
	@touch $@

run: $(VENV)/.run
	@$(BIN)/gemma run nano "$(PROMPT)" </dev/null

test: $(VENV)/.test
	@$(BIN)/python -m pytest -n 2 -m "not slow and not gpu" tests

$(VENV)/mirror/bin/olah-cli: $(VENV)/.test
	@$(PYTHON) -m venv $(VENV)/mirror
	@$(VENV)/mirror/bin/python -m pip install --quiet --disable-pip-version-check olah==0.5.4

test-all: $(VENV)/.test $(VENV)/mirror/bin/olah-cli
	@$(BIN)/python -m pytest -n 2 -m "not gpu" --timeout 600 tests

check: $(VENV)/.test
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

clean:
	rm -rf $(VENV)

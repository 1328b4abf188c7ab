# Four words: make run, make test, make lint, make bench. Each installs into .venv first, once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: run test lint bench

run: $(READY)
	$(BIN)/surefoot run ant --realtime

test: $(READY)
	$(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	for file in $$(grep -l "^def main" bench/*.py); do \
		$(BIN)/surefoot bench $$(basename $$file .py) || exit 1; \
	done

$(READY): pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and \
		\"Surefoot needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...\" or 0)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable ".[agents,dev,imitation,tune]"
	@$(BIN)/pip install --quiet --only-binary envpool --editable ".[envpool]" || \
		echo "EnvPool has no wheel for this machine: its plant is unavailable and its tests are skipped."
	@touch $@

# Every target works on a fresh clone: it makes .venv first where that is missing or older than pyproject.toml.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What is linted, formatted and type-checked: the folders of these that exist.
SOURCES := $(wildcard src tests bench examples scripts)
# Each writes a file of the repository from another and, told --check, fails where the two disagree.
GENERATORS := scripts/unasync.py scripts/settings_docs.py
# What `make serve` lets a worker run.
SERVE_APP ?= examples.stdlib_index:app
# Extra words for the program behind a target: make test ARGS="-k lease -x".
ARGS ?=
# What `make fuzz-guided` attacks.
TARGET ?= broker

.DEFAULT_GOAL := help
.PHONY: help venv check test sim chaos fuzz fuzz-guided soak bench depth run serve format clean

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Make .venv with everything needed to work on tq

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[broker,dev]'
	@touch $(STAMP)

check: $(STAMP) ## Check format, lint, types, imports and generated files
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports --no-logo
	@set -e; for generator in $(GENERATORS); do \
		echo "$(BIN)/python $$generator --check"; $(BIN)/python $$generator --check; done

test: $(STAMP) ## Run all tests, real processes included
	$(BIN)/python -m pytest $(ARGS)

sim: $(STAMP) ## Simulate whole runs under faults, a few seeds
	$(BIN)/python -m tq.testing.simulate $(ARGS)

chaos: $(STAMP) ## Press real processes hard for minutes, then simulate seed after seed until Ctrl-C or a failure
	ACCEPTANCE_LENGTH=15 $(BIN)/python -m pytest -q \
		tests/acceptance/test_kill.py tests/acceptance/test_pressure.py tests/acceptance/test_pressure_disk.py
	$(BIN)/python -m tq.testing.simulate --seeds 0 $(ARGS)

fuzz: $(STAMP) ## Attack the protocol with harmed frames (ARGS="--frames 10000000" for the long form)
	$(BIN)/python -m tests.fuzz.run $(ARGS)

fuzz-guided: $(STAMP) ## Attack it steered by what is covered (TARGET=broker, client or service; ARGS="-runs=1000000")
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.guided $(TARGET) $(ARGS)

soak: $(STAMP) ## Load a real broker under accidents, and see what grows (ARGS="--tasks 5000000" for the long form)
	$(BIN)/python -m bench.soak $(ARGS)

bench: $(STAMP) ## Measure rates and latencies beside the machine's floor and other queues
	$(BIN)/python -m bench $(ARGS)

depth: $(STAMP) ## Measure what ten million queued tasks cost, over many shapes (an hour)
	$(BIN)/python -m bench.depth $(ARGS)

run: $(STAMP) ## Do the main job: index the Python standard library, one task a file
	$(BIN)/python -m examples.stdlib_index $(ARGS)

serve: $(STAMP) ## Start a broker and a worker and leave them running until Ctrl-C
	@scripts/serve.sh $(BIN) $(SERVE_APP)

format: $(STAMP) ## Format the code, mend what lint can mend, write the generated files
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	@set -e; for generator in $(GENERATORS); do $(BIN)/python $$generator; done

clean: ## Remove .venv, caches and built files, and the data of `make serve`
	rm -rf $(VENV) .bench .run .soak .fuzz dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

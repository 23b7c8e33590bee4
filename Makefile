# One command each; all of them make their own environment in .venv and reinstall nothing when nothing changed.
# Another interpreter: make PYTHON=python3.12 ...    Overrides of a run: make simulate ARGS="seed=2 num_rounds=5"

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PYTHON ?=
ARGS ?=
BIN := .venv/bin
# Only to run .ci/install.py, which then chooses the interpreter of .venv.
HOST_PYTHON := $(if $(PYTHON),$(PYTHON),python3)
INSTALL := $(HOST_PYTHON) .ci/install.py
# A process a core; the tests of a file stay together, because they share what is slow to start.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile
SOURCES := fl clients server conf experiments

# Nothing that these commands start calls home.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_TELEMETRY_ENABLED := 0
export HF_HUB_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help install develop simulate test test-all check format lint types constraints clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

simulate: install ## Train a global model over simulated clients; the last line is the run's folder. ARGS="seed=2"
	@$(BIN)/fl simulate $(ARGS)

test: develop ## All tests but the slow ones, in under 15 minutes
	@$(PYTEST) -m "not slow" $(ARGS)

test-all: develop ## All tests
	@$(PYTEST) $(ARGS)

check: lint types test ## Format, lint, strict types, then make test: what CI runs

format: develop ## Format the sources, and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: develop
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: develop
	@$(BIN)/mypy $(SOURCES)

install: ## Make .venv, with what the command fl needs
	@$(INSTALL) ops 1>&2

develop: ## Make .venv, with what the tests need as well
	@$(INSTALL) ops dev 1>&2

constraints: ## Write constraints.txt anew from the newest releases that go together
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	$(HOST_PYTHON) -m venv $$dir/venv; \
	echo 'torch==2.13.0' > $$dir/pins; \
	$$dir/venv/bin/python -m pip install --quiet --constraint $$dir/pins '.[ops,dev]' 1>&2; \
	$$dir/venv/bin/python -m pip check 1>&2; \
	{ sed -n '/^#/p' constraints.txt; \
	  $$dir/venv/bin/python -m pip freeze --all --exclude pip --exclude meadow-fl | sed 's/+cpu$$//'; } > $$dir/new; \
	cp $$dir/new constraints.txt

clean: ## Remove the environment and the caches, not the runs
	@rm -rf .venv .venv.lock .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info

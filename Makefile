# One command for each thing that is done with this repository: `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements/dev.txt
ARGS ?=

.PHONY: help setup demo demo-mlflow serve test lint format bench bench-decisions docs coverage lock clean

help: ## list what can be made
	@echo "make TARGET [ARGS='…']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The first interpreter that is new enough and can make environments. A name on PATH may be a
# shim of something that is not installed, so each one is asked.
define FIND_PYTHON
found=""; \
for name in $${PYTHON:-} python3.11 python3.12 python3.13 python3; do \
  if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
    found="$$name"; break; \
  fi; \
done; \
if [ -z "$$found" ]; then \
  echo "hotswap needs Python 3.11 or later with venv, and found none: $$(python3 --version 2>&1 || true)." >&2; \
  echo "Install it (Debian: apt-get install python3 python3-venv), or name one: make setup PYTHON=/path/to/python3.11" >&2; \
  exit 1; \
fi
endef

$(BIN)/python:
	@$(FIND_PYTHON); \
	echo "Making $(VENV) with $$($$found --version)"; \
	"$$found" -m venv $(VENV)

# pip's own output is long: only a count is shown, and all of it if it fails.
$(STAMP): $(LOCK) pyproject.toml | $(BIN)/python
	@echo "Installing from $(LOCK) (the first time takes a few minutes)"
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --progress-bar off --no-input \
	    -r $(LOCK) 2>$(VENV)/pip.err | tee $(VENV)/pip.out \
	  | awk '/^(Collecting|Requirement already)/ { n++; if (n % 25 == 0) { print "  " n " packages looked at"; fflush() } } \
	         /^Installing collected/ { print "  installing"; fflush() }' \
	  || { tail -n 40 $(VENV)/pip.out $(VENV)/pip.err >&2; exit 1; }
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -q --no-input --no-deps -e . 2>$(VENV)/pip.err \
	  || { cat $(VENV)/pip.err >&2; exit 1; }
	@touch $@
	@echo "Ready: $(BIN)/hotswap"

setup: $(STAMP) ## make .venv and install hotswap with everything it can use (once)

demo: $(STAMP) ## train, serve, switch, and roll out by evidence under traffic (ARGS=--exit to end by itself)
	@$(BIN)/hotswap demo $(ARGS)

demo-mlflow: $(STAMP) ## follow a real MLflow server's aliases under traffic (ARGS=--exit to end by itself)
	@$(BIN)/python -m hotswap.app.demo_mlflow $(ARGS)

serve: $(STAMP) ## serve a models folder (ARGS='MODELS --port 8080')
	@$(BIN)/hotswap serve $(ARGS)

test: $(STAMP) ## run every test (ARGS go to pytest)
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## check style, formatting, types and the import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: $(STAMP) ## format the code and fix what can be fixed by itself
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP) ## measure against other servers, side by side (ARGS go to benchmarks)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-decisions: $(STAMP) ## measure how well rollouts decide, and write docs/decisions.md (ARGS=--quick)
	@$(BIN)/python -m benchmarks.decisions $(ARGS)

docs: $(STAMP) ## build the documentation into docs/_build/html
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

coverage: $(STAMP) ## branch coverage of the unit and contract tests
	@$(BIN)/python -m coverage run -m pytest tests/unit tests/contract $(ARGS)
	@$(BIN)/python -m coverage report

lock: $(BIN)/python ## write requirements/dev.txt from what .venv holds now
	@$(BIN)/python requirements/lock.py > $(LOCK).new
	@mv $(LOCK).new $(LOCK)
	@echo "$(LOCK): $$(grep -c '==' $(LOCK)) packages"

clean: ## remove what was built (not .venv, not served state)
	@rm -rf build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage

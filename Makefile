# Each target does all the set-up it needs; a second run has nothing left to do and is quick.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

SETUP_RUN := $(PYTHON) packaging/setup_environment.py --for run 1>&2
SETUP_TEST := $(PYTHON) packaging/setup_environment.py --for test 1>&2

.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo test check lint types imports docs docs-current bench fuzz clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## prepare everything that running needs
	@$(SETUP_RUN)

setup-test:
	@$(SETUP_TEST)

demo: ## set up, then place, record, verify and export one real call in ./demo (ARGS=--json)
	@$(SETUP_RUN)
	@$(BIN)/b2bua demo $(ARGS)

test: setup-test ## set up, then run every test (ARGS go to pytest)
	@$(BIN)/python -m tests $(ARGS)

check: lint types imports docs-current test ## lint, types, imports, docs current, tests

lint: setup-test ## style
	@$(BIN)/ruff check .

types: setup-test ## mypy --strict
	@$(BIN)/mypy

imports: setup-test ## the import direction
	@$(BIN)/lint-imports

docs: setup-test ## write the pages that are generated from code
	@$(BIN)/python docs/generate.py

docs-current: setup-test
	@$(BIN)/python docs/generate.py --check

bench: setup-test ## measure; prints JSON
	@$(BIN)/python -m tests.bench $(ARGS)

fuzz: setup-test ## feed every parser of untrusted bytes for ARGS seconds (60) in all
	@$(BIN)/python -m tests.fuzz $(ARGS)

clean: ## remove what was made in the tree; the cache outside it stays
	rm -rf $(VENV) build *.egg-info demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
		.coverage htmlcov b2bua/native/*.so
	find b2bua recording tls tests packaging -name __pycache__ -type d -prune -exec rm -rf {} +

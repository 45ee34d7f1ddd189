# Every target with a line behind `##` stands in `make help`. Works with GNU make 3.81 (macOS).
SHELL := /bin/bash
PYTHON := .venv/bin/python
BIN := .venv/bin
# Test processes at once; 0 runs the tests in this process.
WORKERS := 2
# Generated requests for each operation in each phase of `make fuzz`.
EXAMPLES := 160
LOCK_ANY := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-config --no-emit-index-url \
	--no-header $(UPGRADE)
LOCK := $(LOCK_ANY) --python-version 3.11
# The project is built with what is locked, not in an environment of its own; hatchling's editable builds import
# editables.
BUILD_REQUIREMENTS := $(PYTHON) -c \
	"import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['build-system']['requires'], 'editables', sep='\n')"

.DEFAULT_GOAL := help
.PHONY: help setup dev test check format lint types imports openapi-check migrations-check \
	unit faults stack fuzz contract bench openapi lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  %-18s %s\n", $$1, $$2}'

setup: ## bring .venv up to date with the locked test requirements
	@./dev.sh --install-only requirements-test.txt

dev: ## start everything on this machine (the same as ./dev.sh)
	@./dev.sh

test: check ## everything but the benchmarks: checks, then all tests
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup tests

check: lint types imports openapi-check migrations-check ## format, lint, types, import contracts, openapi, migrations

lint: setup ## ruff: format and rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup ## basedpyright, strict
	$(BIN)/basedpyright --pythonpath $(PYTHON)

imports: setup ## the layers of docs/architecture.md
	$(BIN)/lint-imports

openapi-check: setup ## is openapi.yaml what the app says?
	$(BIN)/pytest -q tests/style -k openapi

migrations-check: setup ## do the migrations lead to the models?
	$(BIN)/pytest -q tests/style -k migrations

unit: setup ## the tests that need nothing running
	$(BIN)/pytest tests/unit

faults: setup ## the fault tests, with real processes
	$(BIN)/pytest tests/faults

stack: setup ## the tests of the dev stack itself
	$(BIN)/pytest tests/stack

format: setup ## let ruff format and repair what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

fuzz: setup ## schemathesis over all of openapi.yaml, about 20,000 requests; EXAMPLES sets how many
	$(PYTHON) -m tests.contract.fuzz --examples $(EXAMPLES)

contract: setup ## the tests with the client and the agents' SDK from PyPI
	$(BIN)/pytest tests/contract

bench: setup ## the benchmarks: tables, and JSON in bench.json
	$(PYTHON) -m tests.benchmarks

openapi: setup ## write openapi.yaml
	$(PYTHON) -m agentex.cli.main openapi --output openapi.yaml

lock: setup ## write the lock files anew; UPGRADE=--upgrade takes newer versions
	$(BUILD_REQUIREMENTS) | $(LOCK) --extra dev pyproject.toml - -o requirements.txt > /dev/null
	$(BUILD_REQUIREMENTS) | $(LOCK) --extra dev --extra test --constraint requirements.txt \
		pyproject.toml - -o requirements-test.txt > /dev/null
	$(LOCK) tests/contract/requirements-client.in -o tests/contract/requirements-client.txt > /dev/null
	$(LOCK) tests/contract/requirements-tools.in -o tests/contract/requirements-tools.txt > /dev/null
	$(LOCK_ANY) --python-version 3.12 tests/contract/requirements-sdk.in \
		-o tests/contract/requirements-sdk.txt > /dev/null

clean: ## remove .venv, caches and build results; data in .agentex stays
	rm -rf .venv .venv-test .venv-contract build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

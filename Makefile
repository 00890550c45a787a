# z0 from a bare checkout: Python 3.11 or newer, git and make are all it takes.

VENV ?= .venv
# Pins for every package, the build's own included (CONSTRAINTS=requirements-ci.txt); empty: the newest.
CONSTRAINTS ?=
# Handed on to the command: make test ARGS="-k alarm", make bench ARGS=--smoke.
ARGS ?=
# How long make torture (120) and make soak (10) take.
MINUTES ?=

# Where the engines live that z0 is measured beside.
PEERS ?= .venv-peers

BIN := $(VENV)/bin
PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --editable

ifneq ($(CONSTRAINTS),)
export PIP_CONSTRAINT := $(CONSTRAINTS)
export PIP_BUILD_CONSTRAINT := $(CONSTRAINTS)
endif

# Bytecode is kept: tests start many processes, each of which would compile z0 anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint bench bench-peers torture soak conformance clean

help:  ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/make \1 - \2/p' Makefile

demo: $(VENV)/.run  ## install z0 into .venv and run its demo
	@$(BIN)/z0 demo $(ARGS)

test: $(VENV)/.dev  ## run the tests, on all cores
	@$(BIN)/pytest -n auto --dist worksteal $(ARGS)

lint: $(VENV)/.dev  ## check style, types and the direction of imports
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: $(VENV)/.run  ## measure this machine
	@$(BIN)/z0 bench $(ARGS)

bench-peers: $(VENV)/.run $(PEERS)/.made  ## measure z0 beside DBOS on SQLite (installed in an environment of its own)
	@$(BIN)/python bench/peers/versus.py $(PEERS)/bin/python $(ARGS)

torture: $(VENV)/.dev  ## run the proofs twenty times as thoroughly, for up to MINUTES
	@$(BIN)/pytest -m "slow or proof" --amount torture --minutes $(or $(MINUTES),120) $(ARGS)

soak: $(VENV)/.dev  ## a long mixed load, for MINUTES: what grows is a leak
	@$(BIN)/pytest -m soak --minutes $(or $(MINUTES),10) $(ARGS)

conformance: $(VENV)/.dev  ## compare with the real Durable Objects (needs node and npm)
	@$(BIN)/python -m tests.conformance.run $(ARGS)

clean:  ## remove everything made here, except data
	rm -rf .venv .venv-* build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two stamps tell what is installed: z0 alone, or with the tools of a developer. They mean nothing once the
# Python that the environment was made with is gone.
ifeq ($(realpath $(BIN)/python),)
.PHONY: $(VENV)/.run $(VENV)/.dev
endif

$(VENV)/.run: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "installing z0 into $(VENV)"
	@$(INSTALL) .
	@touch $@

$(VENV)/.dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "installing z0 and its tools into $(VENV)"
	@$(INSTALL) '.[dev]'
	@touch $(VENV)/.run $@

# Its packages are pinned by a file of its own, whatever CONSTRAINTS says of ours.
$(PEERS)/.made: bench/peers/requirements.txt | $(BIN)/python
	@echo "installing DBOS into $(PEERS)"
	@$(BIN)/python -m venv --clear $(PEERS)
	@env -u PIP_CONSTRAINT -u PIP_BUILD_CONSTRAINT \
		$(PEERS)/bin/python -m pip install -qq --disable-pip-version-check -r bench/peers/requirements.txt
	@touch $@

$(BIN)/python:
	@for python in $(PYTHONS); do \
		$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		exec $$python -m venv --clear $(VENV); \
	done; \
	echo "z0 needs Python 3.11 or newer, with its venv module; looked for: $(PYTHONS)." >&2; \
	echo "Name one: make PYTHON=/path/to/python3" >&2; \
	exit 1

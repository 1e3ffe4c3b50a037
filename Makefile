# `make benchmark` does all set-up and the main job, `make test` all set-up and the tests; `make help` tells the rest.
#
# VENV is the environment: made and filled from the lock if it is not there. VENV= (empty) uses the python on the PATH
# as it is and installs nothing, as in a container.
VENV ?= .venv
PYTHON ?= python3
LOCK := requirements.lock

ifeq ($(strip $(VENV)),)
  PY := $(PYTHON)
  READY :=
else
  PY := $(VENV)/bin/python
  READY := $(VENV)/.ready
endif

# What the suite is asked to do; empty means its default (see `python -m benchmarks run --help`).
export PROFILE DATA SEEDS DEVICE ONLY RESULTS VGG16_WEIGHTS ALLOW_NOT_RUN

.DEFAULT_GOAL := help
.PHONY: help setup benchmark test data report judge list lint clean lock

help:  ## show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo
	@echo "  variables: PROFILE=full|quick DATA=FOLDER|synthetic SEEDS='0 1 2' DEVICE=cuda|cpu ONLY='ID ...' RESULTS=FOLDER"
	@echo "             VGG16_WEIGHTS=FILE ALLOW_NOT_RUN='ID ...' VENV=FOLDER (empty: install nothing) PYTHON=COMMAND"

setup: $(READY)  ## make the environment from the lock

# An existing environment without our mark (VENV=/some/env) is completed, not replaced.
$(VENV)/.ready: $(LOCK) pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes -r $(LOCK)
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

benchmark: $(READY)  ## train all configurations, judge every gate, write RESULTS.md; exit code 0 if all passed
	@$(PY) -m pytest benchmarks/test_acceptance.py -q --no-header -p no:cacheprovider; status=$$?; \
	[ $$status -le 1 ] || exit $$status; \
	$(PY) -m benchmarks report && $(PY) -m benchmarks judge && exit $$status

test: $(READY)  ## run the tests, linter and type checker
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest

data: $(READY)  ## download EndoVis, Fashion-MNIST and VGG16's weights into data/ and verify them
	$(PY) -m benchmarks data fetch
	$(PY) -m benchmarks data verify

report: $(READY)  ## write RESULTS.md and figures again from the records
	@$(PY) -m benchmarks report

judge: $(READY)  ## judge the records again; exit code 0 if all gates passed
	@$(PY) -m benchmarks judge

list: $(READY)  ## show the configurations
	@$(PY) -m benchmarks list

lint: $(READY)  ## mend what the linter can, then check style and types
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(PY) -m mypy

lock:  ## pin every dependency with its hashes again (needs uv)
	uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--all-extras --no-emit-package hw6core -o $(LOCK) pyproject.toml

clean:  ## delete the environment, caches and synthetic data; data/ and results/ stay
	rm -rf .venv .tox .cache .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

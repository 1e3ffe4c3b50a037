# `make benchmark` sets up the environment and runs the suite, `make test` sets it up and runs the tests; see `make help`.
#
# VENV is the environment. The default is made from the lock file if it does not exist, another one only by `make setup`.
# One that was made elsewhere is used as it is, so that its torch is judged. VENV= (empty) uses the python on the PATH,
# as in a container.
VENV ?= .venv
PYTHON ?= python3
LOCK := requirements.lock

ifeq ($(strip $(VENV)),)
  PY := $(PYTHON)
  READY :=
else
  ifneq ($(words $(VENV)),1)
    $(error VENV is '$(VENV)'; expected a path without spaces, which make does not support)
  endif
  PY := $(VENV)/bin/python
  ifeq ($(filter .venv,$(VENV))$(filter setup,$(MAKECMDGOALS))$(wildcard $(PY)),)
    $(error no $(PY); expected an existing environment; to make one from the lock file: make setup VENV=$(VENV))
  endif
  # Ours: does not exist yet, or was made by this checkout: its mark names the checkout, or it lies inside.
  OURS := $(shell test ! -x $(PY) || { test -e $(VENV)/.made-here && case "$$(cd $(VENV) && pwd -P)/" in \
	("$$(pwd -P)"/*) ;; (*) test "$$(cat $(VENV)/.made-here)" = "$$(pwd -P)";; esac; } && echo yes)
  READY := $(if $(OURS),$(VENV)/.ready)
endif

# Options of the suite (see `python -m benchmarks run --help`): make itself passes the variables of its command line on in
# the environment. Recipes read them there ("$$DATA"), because the shell would execute parts of what make inserts.

# Use this checkout's code, whatever is installed in the environment, also with PYTHONSAFEPATH=1.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
# Run operations that Apple's GPU does not support on the CPU, with a warning; torch reads this on import.
export PYTORCH_ENABLE_MPS_FALLBACK ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup benchmark fingerprint speed peers gpu-check determinism detection notebook test mutants data report judge compare upgrade smoke docker-build docker-benchmark list lint clean lock

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo
	@echo "  variables: those of 'python -m benchmarks run --help', such as"
	@echo "             PROFILE=full|quick DATA=FOLDER|synthetic SEEDS='0 1 2' ONLY='ID ...' DEVICE=cpu RESULTS=FOLDER,"
	@echo "             FINGERPRINT=1 (benchmark makes one first), EVERY_GPU=1 (benchmark: all runs on each GPU),"
	@echo "             VENV=FOLDER (an existing environment; empty: the python on the PATH; neither is changed),"
	@echo "             PYTHON=COMMAND (makes the environment)"

setup: $(READY)  ## make the environment from the lock file

$(VENV)/.ready: $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not sys.version_info >= (3, 11, 4))' || \
		{ echo "$(PYTHON) is older than Python 3.11.4; use a newer one: make PYTHON=python3.12"; exit 2; }
	$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || \
		{ mkdir -p $(VENV) && pwd -P > $(VENV)/.made-here && $(PYTHON) -m venv $(VENV); }
	$(VENV)/bin/python -m pip install --quiet --require-hashes -r $(LOCK)
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

benchmark: $(READY)  ## train all configurations, judge every gate, write RESULTS.md; exit code 0 if all passed
	@$(PY) -m benchmarks.acceptance

fingerprint: $(READY)  ## train for a minute and compare bit for bit with an earlier fingerprint, or those in AGAINST
	@$(PY) -m benchmarks fingerprint

speed: $(READY)  ## compare the speed of the suite's parts with straightforward code and with other libraries
	@mkdir -p results; $(PY) -m pytest benchmarks/speed/test_speed.py -q --no-header --no-summary -p no:cacheprovider \
		--benchmark-json=results/speed.json --benchmark-disable-gc --benchmark-columns=median -s

gpu-check: $(READY)  ## run all checks that need a GPU, in at most MINUTES (20), and write RESULTS/GPU.md
	@$(PY) -m benchmarks.speed.gpu_check

detection: $(READY)  ## inject faults into short trainings and count which are detected; 15 minutes of one core, resumable
	@$(PY) -m benchmarks.detection

determinism: $(READY)  ## train for STEPS steps (200) three times in deterministic mode and compare bit for bit
	@$(PY) -m benchmarks.speed.determinism

notebook: $(READY)  ## execute the assignment's notebook, docs/hw6.py, and write it as ipynb, HTML and PDF to results/notebook
	@$(PY) -m benchmarks.notebook

peers: $(READY)  ## install more libraries for `make speed` to compare with (Lightning, segmentation_models.pytorch)
	$(PY) -m pip install --quiet --require-hashes -r requirements-peers.lock

test: $(READY)  ## run linter, type checker and tests
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	@# At the same time, as the tests do not use two cores all the time.
	$(PY) -m mypy & OMP_NUM_THREADS=1 $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder; tests=$$?; \
		wait $$! || { echo "error: mypy failed, see above" >&2; exit 1; }; exit $$tests

mutants: $(READY)  ## put errors into the code, one at a time, and check that a test fails for each (many minutes)
	@$(PY) -m tests.mutants

data: $(READY)  ## download EndoVis, Fashion-MNIST and VGG16's weights into data/ and verify them
	@case "$$DATA" in ""|synthetic) DATA=data;; esac; set -x; \
		$(PY) -m benchmarks data fetch "--root=$$DATA" && $(PY) -m benchmarks data verify "--root=$$DATA"

report: $(READY)  ## rewrite RESULTS.md and figures from the records
	@$(PY) -m benchmarks report

judge: $(READY)  ## judge the records again; exit code 0 if all gates passed
	@$(PY) -m benchmarks judge

compare: $(READY)  ## compare results with those in the folder BASE; exit code 0 if nothing became worse
	@test -n "$$BASE" || { echo "BASE is not set; name the results to compare with: make compare BASE=FOLDER"; exit 2; }
	@$(PY) -m benchmarks compare -- "$$BASE"

upgrade: $(READY)  ## train in OLD and NEW (environments or images) in turn, with at most MOST_SEEDS (10); 0 if NEW is no worse
	@test -n "$$OLD" && test -n "$$NEW" || { echo "OLD or NEW is not set; name both: make upgrade OLD=FOLDER NEW=FOLDER"; exit 2; }
	@$(PY) -m benchmarks upgrade -- "$$OLD" "$$NEW"

smoke: $(READY)  ## check in seconds whether torch sees a GPU, and if not, why
	@$(PY) -m benchmarks smoke

export IMAGE ?= hw6-benchmark
# Without tags, whose names are not trusted.
COMMIT = $(shell env -u GIT_DIR -u GIT_WORK_TREE git -c safe.directory='*' describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)

docker-build:  ## build the container image IMAGE
	docker build --build-arg COMMIT=$(COMMIT) -t "$$IMAGE" -f docker/Dockerfile .

docker-benchmark:  ## `make benchmark` in the image, with data/, results/ and a cache outside it
	@test -z "$$RESULTS$$VGG16_WEIGHTS$$AGAINST$$ENGINE" || { echo "RESULTS, VGG16_WEIGHTS, AGAINST and ENGINE do not work" \
		"with the container, which writes to results/ and reads the weights of make data; unset them"; exit 2; }
	export TORCH_HOME="$${TORCH_HOME:-$${XDG_CACHE_HOME:-$$HOME/.cache}/torch}"; mkdir -p data results "$$TORCH_HOME"; \
		case "$$DATA" in synthetic) SUITE_DATA=synthetic; DATA=data;; "") DATA=data;; *) SUITE_DATA=/data;; esac; export SUITE_DATA; \
		DATA=$$(cd -- "$$DATA" >/dev/null && pwd) || { echo "DATA is not a folder; expected endovis/ and fashion_mnist/ in it"; exit 2; }; \
		IMAGE_DIGEST=$$(docker image inspect --format '{{.Id}}' "$$IMAGE") RUN_UID=$$(id -u) RUN_GID=$$(id -g) \
		DATA="$$DATA" RESULTS="$$PWD/results" \
		docker compose -f docker/compose.yaml run --rm benchmark

list: $(READY)  ## show the configurations
	@$(PY) -m benchmarks list

lint: $(READY)  ## apply the linter's fixes, then check style, types and the direction of imports
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(PY) -m mypy
	$(PY) -m pytest -q tests/test_imports.py

lock:  ## update the lock files of all dependencies, with hashes (needs uv)
	uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--extra dev --no-emit-package hw6core -o $(LOCK) pyproject.toml
	uv pip compile --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--extra dev --extra peers --no-emit-package hw6core -o requirements-peers.lock pyproject.toml

clean:  ## delete the environment, caches and synthetic data; keep data/ and results/
	rm -rf .venv .tox .cache .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Development commands; CI runs the same targets.
#
#   make demo     install the server and the client (no torch), call all five RPCs, write demo.png
#   make test     install everything and run all tests
#
# PYTHON chooses the interpreter (3.11 to 3.14), DEVICE=cpu or gpu the onnxruntime build.

PYTHON ?= python3
VENV ?= .venv
MODEL ?= mnist-vae
LISTEN ?= 127.0.0.1:50051
SOAK_S ?= 180
# gpu if nvidia-smi finds a GPU, otherwise cpu.
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)

# Test files run in parallel; PARALLEL= runs them one after the other.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SERVING := $(VENV)/.serving-$(DEVICE)
TRAINING := $(VENV)/.training-$(DEVICE)
TESTING := $(VENV)/.testing-$(DEVICE)
LINTING := $(VENV)/.linting
MEMBERS := proto/pyproject.toml server/pyproject.toml clients/python/pyproject.toml
TYPED := proto/generate.py server/latentserve_server training/latentserve_training clients/python/latentserve_client $(patsubst %/__init__.py,%,$(wildcard clients/conformance/conformance_*/__init__.py)) clients/measure.py clients/python/bench.py

.PHONY: help demo serve load train evaluate export test compose-test soak conformance measure-clients lint format proto bench clean

help:
	@sed -n '3,4p' Makefile | cut -c3-
	@echo "  make serve    serve exports/ on $(LISTEN)"
	@echo "  make load     [ARGS='--rate 200']: serve exports/ and run the load tester"
	@echo "  make train    MODEL=$(MODEL) [ARGS='--data DIR']: train a preset into runs/"
	@echo "  make evaluate MODEL=$(MODEL) [ARGS='--data DIR']: compute all metrics of runs/MODEL"
	@echo "  make export   MODEL=$(MODEL): export runs/MODEL into exports/"
	@echo "  make conformance [ARGS=--broken]: check that the clients of all languages agree"
	@echo "  make measure-clients: measure the cost of a call with each client"
	@echo "  make lint     ruff, mypy, buf, check of the generated stubs"
	@echo "  make soak     SOAK_S=$(SOAK_S): all kinds of calls for SOAK_S seconds; memory must not grow"
	@echo "  make compose-test  test docker-compose.yml on a real engine: balancing, kill, scale, reload"
	@echo "  make bench    [ARGS=--quick]: measure calls, a bare ONNX Runtime loop and an empty call"
	@echo "  make proto    regenerate the Python stubs"

demo: $(SERVING)
	$(BIN)/python -m latentserve_client.demo --exports exports --out demo.png

serve: $(SERVING)
	$(BIN)/python -m latentserve_server --exports exports --listen $(LISTEN) --default-model $(MODEL)

load: $(SERVING)
	$(BIN)/python -m latentserve_client.load --exports exports --model $(MODEL) $(ARGS)

train: $(TRAINING)
	$(BIN)/python -m latentserve_training train --config $(MODEL) $(ARGS)

export: $(TRAINING)
	$(BIN)/python -m latentserve_training export runs/$(MODEL) $(ARGS)

evaluate: $(TRAINING)
	$(BIN)/python -m latentserve_training evaluate runs/$(MODEL) $(ARGS)

test: $(TESTING)
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

soak: $(TESTING)
	LATENTSERVE_TEST_SOAK_S=$(SOAK_S) $(BIN)/python -m pytest -m soak -s tests/soak $(ARGS)

# CI=true: as root on Debian, install missing packages and start an engine during the test.
compose-test: $(TESTING)
	tests/compose/engine.sh $(BIN)/python -m pytest -m compose -s tests/compose $(ARGS)

measure-clients: $(SERVING)
	$(BIN)/python clients/measure.py $(ARGS)

conformance: $(SERVING)
	$(BIN)/python clients/conformance/run.py $(ARGS)

lint: $(LINTING) $(TRAINING)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/python proto/generate.py --check

format: $(LINTING)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write proto

bench: $(TRAINING)
	$(BIN)/python benchmarks/run.py $(ARGS)

proto: $(LINTING)
	$(BIN)/python proto/generate.py

clean:
	rm -rf $(VENV) runs demo.png

# --- installation ---------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || \
	  { echo "latentserve needs Python 3.11 to 3.14; $(PYTHON) is `$(PYTHON) --version 2>&1`. Choose one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(SERVING): $(BIN)/python $(MEMBERS)
	@echo "installing the server and the client with the $(DEVICE) build of onnxruntime"
	@# Both builds provide the module onnxruntime: uninstall the other one first.
	@$(PIP) uninstall --quiet --yes onnxruntime onnxruntime-gpu 2>/dev/null || true
	$(PIP) install --quiet -e proto -e 'server[$(DEVICE)]' -e clients/python
	@rm -f $(VENV)/.serving-* && touch $@

$(TRAINING): $(SERVING) training/pyproject.toml
	@echo "installing training; torch is large, so the first installation takes minutes"
	$(PIP) install --quiet -e 'training[$(DEVICE)]'
	@touch $@

$(TESTING): $(TRAINING) $(LINTING)
	$(PIP) install --quiet --group deploy
	@touch $@

$(LINTING): $(BIN)/python pyproject.toml
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	$(PIP) install --quiet --group lint --group test
	@touch $@

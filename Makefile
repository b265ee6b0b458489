# The commands of a person; CI calls the same ones.
#
#   make demo     set up serving and the client (no torch), run all five RPCs, draw demo.png
#   make test     set up everything and run every test
#
# PYTHON chooses the interpreter (3.11 to 3.14), DEVICE=cpu or gpu the onnxruntime build.

PYTHON ?= python3
VENV ?= .venv
MODEL ?= mnist-vae
LISTEN ?= 127.0.0.1:50051
SOAK_S ?= 180
# An NVIDIA driver that answers means the gpu extra; anything else means cpu.
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)

# Test files are spread over the cores; PARALLEL= runs them one after the other.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SERVING := $(VENV)/.serving-$(DEVICE)
TRAINING := $(VENV)/.training-$(DEVICE)
TESTING := $(VENV)/.testing-$(DEVICE)
LINTING := $(VENV)/.linting
MEMBERS := proto/pyproject.toml server/pyproject.toml clients/python/pyproject.toml
TYPED := proto/generate.py server/latentserve_server training/latentserve_training clients/python/latentserve_client $(wildcard clients/conformance/conformance_*) clients/measure.py clients/python/bench.py

.PHONY: help demo serve load train evaluate export test compose-test soak conformance measure-clients lint format proto bench clean

help:
	@sed -n '3,4p' Makefile | cut -c3-
	@echo "  make serve    serve exports/ on $(LISTEN)"
	@echo "  make load     [ARGS='--rate 200']: serve exports/ for some seconds and load it"
	@echo "  make train    MODEL=$(MODEL) [ARGS='--data DIR']: train a preset into runs/"
	@echo "  make evaluate MODEL=$(MODEL) [ARGS='--data DIR']: measure runs/MODEL by all that there is"
	@echo "  make export   MODEL=$(MODEL): export runs/MODEL into exports/"
	@echo "  make conformance [ARGS=--broken]: the clients of all languages agree"
	@echo "  make measure-clients: what a call costs through each of them"
	@echo "  make lint     ruff, mypy, buf, stubs in sync"
	@echo "  make soak     SOAK_S=$(SOAK_S): calls of every kind for so many seconds; nothing may grow"
	@echo "  make compose-test  docker-compose.yml on a real engine: balanced, killed, scaled, reloaded"
	@echo "  make bench    [ARGS=--quick]: what calls cost, beside the bare run and an empty call"
	@echo "  make proto    write the Python stubs anew"

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

# CI=true: as root on Debian, install what is missing and start an engine for the time of the test.
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

# --- setting up -----------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || \
	  { echo "latentserve needs Python 3.11 to 3.14; $(PYTHON) is `$(PYTHON) --version 2>&1`. Choose one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(SERVING): $(BIN)/python $(MEMBERS)
	@echo "setting up the server and the client with the $(DEVICE) build of onnxruntime"
	@# Both builds own the module onnxruntime: the other one must go first.
	@$(PIP) uninstall --quiet --yes onnxruntime onnxruntime-gpu 2>/dev/null || true
	$(PIP) install --quiet -e proto -e 'server[$(DEVICE)]' -e clients/python
	@rm -f $(VENV)/.serving-* && touch $@

$(TRAINING): $(SERVING) training/pyproject.toml
	@echo "setting up training; torch is large, the first time takes minutes"
	$(PIP) install --quiet -e 'training[$(DEVICE)]'
	@touch $@

$(TESTING): $(TRAINING) $(LINTING)
	$(PIP) install --quiet --group deploy
	@touch $@

$(LINTING): $(BIN)/python pyproject.toml
	$(PIP) install --quiet --upgrade 'pip>=25.1'
	$(PIP) install --quiet --group lint --group test
	@touch $@

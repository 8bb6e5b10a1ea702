# Everything that is done with this project. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
RUFF := $(BIN)/ruff
RUFF_SETTINGS := --config .ci/ruff.toml
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt

.PHONY: help
help: ## lists the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

# Two environments' worth of packages in one folder, each installed when it is first needed.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "This Python has no venv: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.demo: setup.cfg pyproject.toml .ci/constraints.txt | $(VENV)/bin/python
	@echo "Installing the packages into $(VENV) …"
	@$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "Installing the developers' packages into $(VENV) …"
	@$(INSTALL) --editable '.[dev]'
	@touch $@

.PHONY: venv
venv: $(VENV)/.dev ## makes the virtual environment .venv

.PHONY: demo
demo: $(VENV)/.demo ## the main job from end to end, on this machine (KEEP=1: leave it running)
	@KEEP="$(KEEP)" $(BIN)/python -m deploy.demo.demo

.PHONY: test
test: $(VENV)/.dev ## all tests; says which were left out, and why
	$(BIN)/python -m pytest -n $(JOBS) -rs $(TESTS)

.PHONY: check
check: lint types protos-check test ## everything that CI runs

.PHONY: lint
lint: $(VENV)/.dev ## style and common mistakes
	$(RUFF) check $(RUFF_SETTINGS) .
	$(RUFF) format $(RUFF_SETTINGS) --check .

.PHONY: format
format: $(VENV)/.dev ## mends style
	$(RUFF) check $(RUFF_SETTINGS) --fix .
	$(RUFF) format $(RUFF_SETTINGS) .

.PHONY: types
types: $(VENV)/.dev ## strict types
	$(BIN)/mypy protos router agent cli deploy bench tests

.PHONY: protos
protos: $(VENV)/.dev ## generates the code beside the protos
	$(BIN)/buf format -w protos
	$(BIN)/python -m protos.generate

.PHONY: protos-check
protos-check: $(VENV)/.dev ## proto style, compatibility with the released contract, freshness of generated code
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	cd protos && ../$(BIN)/buf breaking --against released.binpb
	$(BIN)/python -m protos.generate --check

.PHONY: protos-release
protos-release: $(VENV)/.dev ## makes today's contract the one that must not break
	cd protos && ../$(BIN)/buf build --output released.binpb

.PHONY: constraints
constraints: ## takes the newest versions of all packages into .ci/constraints.txt
	rm -rf $(VENV)/constraints && $(PYTHON) -m venv $(VENV)/constraints
	$(VENV)/constraints/bin/python -m pip install --quiet '.[dev]'
	{ echo "# Every package of a fresh install. Made by \`make constraints\`."; \
	  $(VENV)/constraints/bin/python -m pip freeze --exclude llm-router; } > .ci/constraints.txt
	rm -rf $(VENV)/constraints

.PHONY: llama-check
llama-check: $(VENV)/.demo ## real llama.cpp loads the demo's models (needs npm)
	$(BIN)/python -m deploy.demo.llama_check

.PHONY: kill-sweep
kill-sweep: $(VENV)/.dev ## kills downloads at every dangerous moment, 200 times and more
	$(BIN)/python -m tests.sweeps.kill_sweep

.PHONY: bench-download
bench-download: $(VENV)/.dev ## one node's download beside curl, aria2c and hf
	$(BIN)/python -m bench.download

.PHONY: bench-catalog
bench-catalog: $(VENV)/.dev ## the catalog on a slow Hub
	$(BIN)/python -m bench.catalog

.PHONY: bench-catalog-failing
bench-catalog-failing: $(VENV)/.dev ## the catalog on a very slow Hub that fails one call in three
	$(BIN)/python -m bench.catalog --delay 2 --failing 0.333

.PHONY: bench-memory
bench-memory: $(VENV)/.demo ## the memory estimate beside real llama.cpp's figures (needs npm)
	$(BIN)/python -m bench.memory

.PHONY: bench-router
bench-router: $(VENV)/.dev ## agents, orders, reports and registrations on one router
	$(BIN)/python -m bench.router

.PHONY: sim-swarm
sim-swarm: $(VENV)/.dev ## the swarm's scheduler with up to 1,000 simulated nodes
	$(BIN)/python -m bench.sim_swarm

.PHONY: bench-fleet
bench-fleet: $(VENV)/.dev ## a fleet fills itself over one line, beside libtorrent, curl and hf
	$(INSTALL) --editable '.[bench]'
	$(BIN)/python -m bench.swarm --faults

.PHONY: clean
clean: ## removes what make has made
	rm -rf $(VENV) .demo .cache build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The two commands: `make up` and `make test`. Everything else is for people who build or measure the box.
SHELL := /bin/bash
export APPLIANCE_HOME ?= $(CURDIR)/var
VENV ?= $(CURDIR)/.venv
PY := $(VENV)/bin/python
export PATH := $(VENV)/bin:$(PATH)
BENCH_ARGS := $(if $(JSON),--json $(JSON)) $(if $(DATA),--data $(DATA))

.PHONY: help up down setup setup-test test test-faults test-site test-vllm test-recipes chaos prove bundle lint bench peers lock clean

help: ## what there is
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## install only: environment, pinned packages, models (no torch)
	@scripts/setup.sh runtime

setup-test: ## what the tests need on top (Debian packages by apt when root)
	@scripts/setup.sh test

up: setup ## start the box: PORT=8080 HOST=127.0.0.1 DETACH=1 DEMO=1
	@appliance up $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(if $(DETACH),--detach) $(if $(DEMO),--demo)

down: ## stop the box of $APPLIANCE_HOME
	@appliance down

test: setup-test ## everything CI runs, within 10 minutes on 2 cores
	@scripts/test.sh

bundle: setup ## seal the embedded bundle: OUT=dist/embedded.bundle
	@mkdir -p $(dir $(or $(OUT),dist/embedded.bundle))
	@appliance bundle build bundles/embedded.toml -o $(or $(OUT),dist/embedded.bundle)

test-site: setup-test ## bare host (debootstrap, systemd-nspawn, no network) → Ansible → smoke → upgrade → rollback; needs root, minutes
	@$(PY) -m pytest -m site -p no:xdist -s --timeout 1800 tests/integration

test-faults: setup-test ## each fault once: real processes, servers, disks killed, cut and filled; about 8 minutes, power cuts need root
	@$(PY) -m pytest -m faults -n 2 --dist loadfile --timeout 300 tests

test-vllm: setup-test ## the same checks of a chat model against real vLLM on CPU: own environment (3.4 GB), about 10 minutes
	@scripts/test_vllm.sh

test-recipes: setup-test ## the snippets of docs/integrations.md with LangChain and LlamaIndex, in an environment of their own
	@scripts/test_recipes.sh

chaos: setup-test ## seeded faults against real servers and processes, a checker afterwards: SEEDS=20 SEED=1; minutes a seed
	@$(PY) -m tests.chaos --seeds $(or $(SEEDS),20) $(if $(SEED),--seed $(SEED))

prove: setup ## install → smoke → chat → upgrade → rollback in three kinds of closed network; needs root, minutes
	@appliance prove-airgap

lint: setup-test ## ruff, mypy, import-linter
	@scripts/lint.sh

bench: setup-test ## every benchmark; each also as `make bench-NAME [JSON=FILE] [DATA=DIR]`
	@export APPLIANCE_BENCH_LIBRARY=$$(mktemp -d) && trap 'rm -rf "$$APPLIANCE_BENCH_LIBRARY"' EXIT && \
	for name in $$($(PY) -m bench.list); do echo "== $$name"; $(MAKE) --no-print-directory bench-$$name || exit $$?; done

bench-%: setup-test
	@$(PY) -m bench.$(subst -,_,$*) $(BENCH_ARGS)

peers: ## what `make bench-tasks` compares with, under /opt/peers (measured only, never shipped)
	@scripts/setup_peers.sh

lock: ## resolve pyproject.toml into requirements/*.lock again (needs `uv` from the package index)
	@scripts/lock.sh

clean: ## remove the environment and caches (never the home)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

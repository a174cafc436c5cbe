# GNU make 3.81 or newer; `make` alone lists what there is.
ifeq ($(.FEATURES),)
$(error This Makefile needs GNU make 3.81 or newer; on Debian and Ubuntu: apt-get install make, on macOS: xcode-select --install)
endif

BIN := .venv/bin
RUNTIME := .venv/.made-from-requirements.lock
DEV := .venv/.made-from-requirements-dev.lock
# Much of a test of whole processes is waiting: three files at a time keep two cores busy.
PYTEST := $(BIN)/pytest -q -n 3 --dist loadfile
# What asserts seconds has the machine to itself.
TIMED := tests/services/test_rebalance.py
ARGS ?=

.PHONY: help setup demo test test-consistency test-services soak services env check check-deploy bench bench-conflicts bench-kafka bench-latency bench-growth gap-storm bench-publisher bench-replay bench-poison clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/^\([a-z-]*\):.*## /make \1	/' | expand -t 16

setup: $(RUNTIME) ## make .venv in this checkout, with k2 in it

demo: $(RUNTIME) ## play real ticks through the whole path and show what came of them (ARGS="--faults --seed 7")
	@$(BIN)/k2 demo $(ARGS)

test: $(DEV) ## run every test that needs no service, but those that kill (ARGS="tests/unit -k gaps")
	@$(PYTEST) --ignore tests/consistency $(ARGS)

test-consistency: $(DEV) ## kill workers at every step, roll tables back, wake zombies, break every service; the tables must end the same
	@$(BIN)/pytest -q -n 3 --dist worksteal --with-services tests/consistency $(ARGS)

soak: $(DEV) ## break things for twenty minutes and write down what came of it (ARGS="--minutes 3")
	@$(BIN)/python -m tests.consistency.soak $(ARGS)

test-services: $(DEV) ## run the tests that need Kafka, PostgreSQL, S3, a REST catalog, a registry or Redis, on servers that they start
	@$(PYTEST) --services --ignore tests/consistency $(or $(ARGS),--ignore $(TIMED))
	@$(if $(ARGS),,$(BIN)/pytest -q --services $(TIMED) || [ $$? = 5 ]) # 5: every test was left out, for want of a service

services: ## install what these servers need, asking before each command (S="kafka s3" for some)
	@sh scripts/services.sh $(S)

env: ## write .env with random passwords, for docker compose
	@sh scripts/env.sh

check: check-deploy ## lint, types, who may import whom, and the files of deploy/
	$(BIN)/ruff check .
	$(BIN)/mypy k2stream agents tables
	$(BIN)/lint-imports

check-deploy: $(DEV) ## lint Dockerfile, docker-compose.yml, Kubernetes manifests, alerts and dashboard
	@sh scripts/check_deploy.sh

bench: $(DEV) ## measure rows/s and CPU a row beside two baselines; also into build/bench.json
	@mkdir -p build
	@$(BIN)/python -m tests.bench.main $(ARGS)

bench-kafka: $(DEV) ## measure rows/s from a real broker, by codec and number of workers (ARGS="--rows 1000000 --codecs lz4 --runs 1")
	@mkdir -p build
	@$(BIN)/python -m tests.bench.kafka $(ARGS)

bench-conflicts: $(DEV) ## measure commits of four writers that want one table at once (ARGS="--catalog rest" or "--store s3")
	@$(BIN)/python -m tests.bench.commit_conflicts $(ARGS)

bench-latency: $(DEV) ## measure record time to committed row at 10,000 trades/s, with one worker and with four
	@mkdir -p build
	@$(BIN)/python -m tests.bench.latency $(ARGS)

bench-compaction: $(DEV) ## merge 5,000 small files while others read and write; also into build/compaction.md
	@$(BIN)/python -m tests.bench.compaction $(ARGS)

bench-day: $(DEV) ## windows of one second with upkeep: does anything grow? (ARGS="--commits 86400" for all of a day, an hour)
	@$(BIN)/python -m tests.bench.day $(ARGS)

bench-growth: $(DEV) ## measure windows in a table of 1, 10 and 50 M rows (5 GB of disk)
	@mkdir -p build
	@$(BIN)/python -m tests.bench.growth $(ARGS)

gap-storm: $(DEV) ## a million trades in disorder, workers killed twenty times: gap events must equal the oracle (ten minutes)
	@$(BIN)/python -m tests.bench.gap_storm $(ARGS)

bench-publisher: $(DEV) ## measure 25,000 trades/s from one core to a broker's acknowledgement, for a minute; also into build/publisher.md
	@mkdir -p build
	@$(BIN)/python -m tests.bench.publisher --kafka $(ARGS)

bench-replay: $(DEV) ## replay 10,000 dead letters under 20 kills and live traffic (ARGS="--letters 1000 --kills 5")
	@mkdir -p build
	@$(BIN)/python -m tests.bench.replay $(ARGS)

bench-poison: $(DEV) ## mutated records through a real worker, and what bad ones cost (ARGS="--records 20000")
	@mkdir -p build
	@$(BIN)/python -m tests.bench.poison $(ARGS)

clean: ## remove .venv, caches and build results; K2_HOME is left alone (k2 reset)
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find k2stream agents tables tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): requirements.lock pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh

$(DEV): requirements-dev.lock pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh dev

# Citadel's commands. `make` alone lists them.
VENV ?= .venv
BIN := $(VENV)/bin
export VENV PROFILE

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test test-real test-clients storm chaos fuzz lint format bench lock migrate docs \
	sync-client check-installs clean images secrets cpu-plan up down logs ps scale test-deploy chart

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install the locked requirements into .venv (PYTHON=... names an interpreter)
	@./scripts/setup

demo: setup ## Embed the standard library's docstrings and ask questions, on embedded defaults
	@$(BIN)/citadel demo

dev: setup ## Run the whole server on embedded defaults until Ctrl-C
	@$(BIN)/citadel dev

test: setup ## Run all tests (ARGS=... goes to pytest)
	@$(BIN)/python -m pytest -n $(or $(JOBS),4) --dist loadfile -m "not chaos and not deploy and not real" $(ARGS)

test-real: setup ## Test with the real servers that CITADEL_REAL_... name (see CONTRIBUTING.md; ARGS=... goes to pytest)
	@$(BIN)/python -m pytest -m real $(ARGS)

test-clients: setup ## Test with clients of others (openai, LangChain, ...) in an environment of their own (ARGS=... goes to pytest)
	@ARGS="$(ARGS)" ./scripts/test-clients

storm: setup ## Break one thing after another under load, and audit what is left (SEED=1 MINUTES=10 FAULTS=names)
	@$(BIN)/python -m tests.chaos.storm

chaos: storm ## The storm, then the fault tests that take minutes each (ARGS=... goes to pytest)
	@$(BIN)/python -m pytest -m chaos $(ARGS)

fuzz: export FUZZ_REQUESTS = $(or $(REQUESTS),100000)
fuzz: export FUZZ_MESSAGES = $(or $(MESSAGES),100000)
fuzz: export FUZZ_SEED = $(or $(SEED),1)
fuzz: setup ## Send 100,000 random requests and messages to the whole server (REQUESTS=... MESSAGES=... SEED=... ARGS=...)
	@$(BIN)/python -m pytest -s tests/fuzz $(ARGS)

lint: setup ## Check style, types, import rules and the tree
	@./scripts/lint

format: setup ## Format the code
	@$(BIN)/ruff check --fix --quiet . && $(BIN)/ruff format --quiet .

bench: setup ## Measure against the baselines (ONLY=name,name runs some)
	@./scripts/bench

images: ## Build the services' images, and print what each adds to its base
	@./scripts/images

migrate: setup ## Bring the database of CITADEL_POSTGRES_DSN up to date
	@$(BIN)/python -m citadel_orchestration.migrate

lock: setup ## Rewrite the hash-locked requirements
	@./scripts/lock

chart: export CHARTS := 1
chart: setup ## Copy rules and dashboards into the Helm chart and render its manifests
	@$(BIN)/python scripts/chart

docs: setup ## Rewrite the generated parts of the documentation
	@$(BIN)/python scripts/settings-table > docs/settings.md
	@$(BIN)/python scripts/telemetry-table > docs/telemetry.md
	@$(BIN)/python -m citadel_orchestration.definition.json_schema > docs/workflow.schema.json

sync-client: setup ## Generate the SDK's blocking client from the one for asyncio
	@$(BIN)/python scripts/sync-client

secrets: ## Write the secrets of the containers, those that are missing
	@./scripts/secrets

cpu-plan: ## Say which container gets which processors, and write it down for compose (CPUS=n takes fewer)
	@python3 -m compose.cpu_plan $(if $(CPUS),--cpus $(CPUS))

up: secrets cpu-plan ## Start all of it in containers and wait until it works (PROFILE=observability)
	@./scripts/stack up

down: ## Stop the containers; their data stay
	@./scripts/stack down

logs: ## Follow what the containers say (SERVICE=name)
	@./scripts/stack logs $(SERVICE)

ps: ## List the containers
	@./scripts/stack ps

scale: ## Change the number of containers, as in: make scale embeddings=4
	@./scripts/stack scale $(foreach name,embeddings orchestration monitoring maintenance beat,$(if $($(name)),$(name)=$($(name))))

test-deploy: setup ## Test images and stack on this machine's Docker engine (ARGS=... goes to pytest)
	@$(BIN)/python -m pytest -m deploy tests/deploy tests/unit/k8s $(ARGS)

check-installs: setup ## Install each package alone from its own lock and import all of it
	@./scripts/check-installs

clean: ## Remove what the commands made, the data under .citadel included
	rm -rf .venv .venv-* tests/clients/js/node_modules .citadel bench-results .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

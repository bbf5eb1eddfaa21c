# All commands work on a fresh checkout with Python 3.11 or newer, make and git: each sets up what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?=
WAREHOUSE ?= sqlite
PORT ?= 8080
ARGS ?=

VENV := .venv
VENV_32 := .venv-airflow-3.2
PACKAGING := pyproject.toml tools/venv.sh airflow_provider_m2p/__init__.py
PYTEST := -m pytest -n 2 --dist loadgroup -q
# What meets neither Airflow nor the libraries that differ between its lines, and the images, which are for 3.3. The
# warehouse is tested there on SQLite and, by both drivers, PostgreSQL.
SAME_ON_3.2 := $(addprefix tests/,integration/faults integration/hostile integration/sandbox integration/vendor_samples \
	integration/test_soak.py system/docker system/test_one_token.py system/test_wheel.py)

.PHONY: help install demo ui test test-airflow-3.2 matrix bench soak lint lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=/path/to/python3   which Python makes the virtual environment (default: the first >= 3.11)"

install: $(VENV)/.installed ## Make .venv with everything the other commands use

demo: install ## Load the sandbox's products by a real Airflow DAG, twice, and check every field (WAREHOUSE=postgres)
	@$(VENV)/bin/python -m tools.demo --warehouse $(WAREHOUSE)

ui: install ## Run Airflow with sandbox, connections and example DAGs; Ctrl-C ends it (PORT=8080)
	@$(VENV)/bin/python -m tools.ui --port $(PORT)

test: install ## Run the whole test suite on Airflow 3.3 (ARGS="-k name" for a part)
	@tools/programs.sh
	$(VENV)/bin/python $(PYTEST) $(ARGS)

test-airflow-3.2: $(VENV_32)/.installed ## Run what can differ there on Airflow 3.2, pandas 2 and SQLAlchemy 2.0
	@tools/programs.sh
	$(VENV_32)/bin/python $(PYTEST) $(addprefix --ignore=,$(SAME_ON_3.2)) -k "not mariadb and not portable" $(ARGS)

matrix: install ## Use the built wheel in clean environments: Airflow 3.2 and 3.3 on Python 3.11, 3.12 and 3.13
	@$(VENV)/bin/python -m tools.matrix

soak: install ## Load 500 times while the platform fails and processes are killed, and compare (ARGS="--loads 50 --seed 2")
	$(VENV)/bin/python -m tools.soak $(ARGS)

bench: install ## Measure the loader side by side with its peers
	$(VENV)/bin/python -m benchmarks $(ARGS)

lint: install ## Check style (ruff) and types (mypy --strict)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

lock: install ## Resolve both constraints files anew
	tools/lock.sh $(VENV)/bin/uv

clean: ## Remove everything these commands made
	rm -rf $(VENV) $(VENV_32) .venv-bench .demo .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: constraints.txt $(PACKAGING)
	@tools/venv.sh $(VENV) constraints.txt "$(PYTHON)"
	@touch $@

$(VENV_32)/.installed: constraints-airflow-3.2.txt $(PACKAGING)
	@tools/venv.sh $(VENV_32) constraints-airflow-3.2.txt "$(PYTHON)"
	@touch $@

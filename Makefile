# The commands of DCDE Hub. Each sets up all it needs; what is there already is not made again.
SHELL := /bin/sh
PYTHON := /usr/bin/python3
DEV := build/env/dev/bin
export PYTHONPATH := $(CURDIR)/testbed/src:$(CURDIR)/demo/src
export PYTHONDONTWRITEBYTECODE := 1
export DCDE_CACHE := $(CURDIR)/build/cache

STATE ?= $(CURDIR)/build/demo
PORT ?= 8765
WORLD_ENVIRONMENTS := node hub user federation site

.PHONY: demo demo-clean test test-long check bench locks schemas packages machine specimen world-environments development

demo: machine world-environments  ## the hub with three sample sites, until ctrl-C
	@$(PYTHON) -m dcde_demo --state $(STATE) --port $(PORT)

demo-clean: ## remove what the demo keeps between starts
	@$(PYTHON) -m dcde_demo --state $(STATE) --clean

test: world-environments development ## unit, functional and browser tests
	@$(DEV)/python -m pytest -m "not long" tests/unit tests/functional tests/journeys $(ARGS)
	@PATH=$(CURDIR)/$(DEV):$$PATH npm --prefix extensions/lab run --silent test

test-long: world-environments development ## matrices and full chains
	@$(DEV)/python -m pytest -m long tests/functional tests/journeys --timeout 1800 $(ARGS)

check: development ## format, lint, types
	@$(DEV)/ruff format --check .
	@$(DEV)/ruff check .
	@$(DEV)/mypy hub/src extensions/models/src extensions/dcde/src extensions/lab/dcde_lab testbed/src demo/src
	@PATH=$(CURDIR)/$(DEV):$$PATH npm --prefix extensions/lab run --silent check

bench: world-environments development ## measurements, written to benchmarks/results
	@$(DEV)/python -m benchmarks $(ARGS)

locks: ## resolve the lock files anew
	@$(PYTHON) setup/environments.py --lock

schemas: development ## write the published JSON Schemas anew
	@PYTHONPATH=extensions/models/src $(DEV)/python -m dcde_models.schemas docs/reference/schemas

packages:
	@setup/debian-packages

machine: packages # what is missing is said before anything is fetched or built
	@$(PYTHON) -m dcde_testbed check

specimen: packages
	@setup/specimen $(DCDE_CACHE)

world-environments: packages specimen
	@echo "Environments:"
	@$(PYTHON) setup/environments.py $(WORLD_ENVIRONMENTS)

development: packages specimen
	@$(PYTHON) setup/environments.py dev panel

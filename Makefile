# Every target does all its own set-up: the first one makes .venv and installs into it, later ones use it again until
# pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := worker,ray,postgres,optuna,nevergrad,api,serve,dev

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint format docs clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv with everything in it, at the tested versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "evomerge needs Python 3.11 or later; name one with make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing evomerge and its libraries into $(VENV): a minute or two, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)  ## evolve a merged digit classifier, kill it half-way, resume it, compare (two minutes)
	$(BIN)/python experiments/demo/demo.py

test: $(STAMP)  ## all tests but the hours-long ones (minutes)
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile $(ARGS)

test-fast: $(STAMP)  ## the tests that need no Ray, no PostgreSQL and little time
	$(BIN)/python -m pytest -m "not (soak or slow or chaos or ray or pg)" -n 2 --dist loadfile $(ARGS)

lint: $(STAMP)  ## style, types and floors, as CI checks them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## apply ruff's formatting and safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## write the generated pages under docs/ again
	$(BIN)/python docs/generate.py

clean:  ## remove .venv and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

# `make help` lists what there is. Everything runs in .venv, made from constraints.txt.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup apt demo test test-slow fuzz lint docs clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(READY)  ## Make .venv with everything that runs and tests the project

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 setup"; exit 2; }
	@$(PYTHON) -m venv --help >/dev/null 2>&1 || { echo "Python's venv module is missing: apt-get install python3-venv"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs,zig]'
	# Alone, because the opencv-python that they ask for would overwrite the headless build.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps trackeval ncnn
	touch $@

apt:  ## Install the system packages that the device tests need (Debian; as root)
	scripts/install-apt

demo: setup  ## Export, verify, measure and run the demo model on a clip
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo demo-output

lint: setup  ## Style, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup lint  ## Everything that CI runs
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-slow: setup  ## The checks that take minutes: full-size models, long clips
	$(BIN)/python -m pytest -m slow

fuzz: setup  ## Try a million inputs on the readers and the C library (hours; CASES=20000 MINUTES=1 for a while)
	cd tests && nice -n 10 ../$(BIN)/python -m fuzz $(or $(CASES),1_000_000) $(if $(SEED),--seed=$(SEED))
	scripts/fuzz-native $$(( 60 * $(or $(MINUTES),10) ))

docs: setup  ## Write the generated parts of the documents again, and build the site
	$(BIN)/python scripts/docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "The site is in build/site: open build/site/index.html"

clean:  ## Remove what the other targets made
	rm -rf .venv demo-output build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

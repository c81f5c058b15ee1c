# `make quickstart` and `make test` need nothing but Python 3.11+ and make: each builds .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: quickstart test test-slow docs results mutants lint types clean help

help:
	@echo "make quickstart   collect data, fine-tune two arms, evaluate, write a page (about 4 minutes)"
	@echo "make test         lint, types, the docs and all quick tests"
	@echo "make test-slow    the tests that take longer than ten seconds each"
	@echo "make docs         build the docs as a site into site/; warnings are errors"
	@echo "make results      write the tables of docs/results.md from results/, and the studies' pages into site/results"
	@echo "make mutants      change the code in small ways and see that quick tests notice (about an hour)"

$(VENV)/base.stamp: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[lm,video]"
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@touch $(VENV)/base.stamp $@

$(VENV)/mutants.stamp: $(VENV)/test.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,mutants]"
	@touch $@

quickstart: $(VENV)/base.stamp
	$(BIN)/chibit quickstart

test: $(VENV)/test.stamp lint types docs
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest -q -m slow

docs: $(VENV)/test.stamp
	$(BIN)/sphinx-build -W -q -d build/doctrees docs site

results: $(VENV)/base.stamp
	$(BIN)/python scripts/write_results.py
	$(BIN)/python scripts/write_results.py --pages site/results

mutants: $(VENV)/mutants.stamp
	$(BIN)/python scripts/mutants.py

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp
	$(BIN)/mypy

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache

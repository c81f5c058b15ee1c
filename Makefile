# `make quickstart` and `make test` need nothing but Python 3.11+ and make: each builds .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: quickstart test campaigns test-slow test-lowest docs linkcheck results mutants lint types clean help

help:
	@echo "make quickstart   collect data, fine-tune two arms, evaluate, write a page (about 4 minutes)"
	@echo "make test         lint, types, the docs and all quick tests"
	@echo "make campaigns    spoil folders, specs and command lines, and see that nothing worse than one line comes of it"
	@echo "make test-slow    the tests that take longer than ten seconds each"
	@echo "make test-lowest  the quick tests with the lowest versions that pyproject.toml allows (not of PyTorch)"
	@echo "make docs         build the docs as a site into site/docs; warnings are errors"
	@echo "make linkcheck    ask every address that the docs name (needs a network)"
	@echo "make results      write the tables of docs/results.md and docs/judging.md from results/, and the studies' pages into site/results"
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

# What continuous integration runs beside: 50 spoiled ones of each kind of folder, specs and command lines.
campaigns: $(VENV)/test.stamp
	$(BIN)/python -m pytest -q -m slow tests/faults/test_campaigns.py

test-slow: $(VENV)/test.stamp
	$(BIN)/python -m pytest -q -m slow

# uv chooses the lowest versions of what is declared, pip installs them (with the PyTorch of constraints.txt).
LOWEST := build/lowest
LOWEST_EXTRAS := lm,video,atari,onnx,parquet
comma := ,
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip compile --quiet --resolution lowest-direct --python $(LOWEST)/bin/python -c constraints.txt \
		$(addprefix --extra ,$(subst $(comma), ,$(LOWEST_EXTRAS))) pyproject.toml -o $(LOWEST)/versions.txt
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c $(LOWEST)/versions.txt -e ".[$(LOWEST_EXTRAS)]"
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check pytest pytest-xdist pytest-timeout hypothesis
	$(LOWEST)/bin/python -m pytest -q -n 2 --dist loadfile tests/unit tests/integration

docs: $(VENV)/test.stamp
	$(BIN)/sphinx-build -W -q -d build/doctrees docs site/docs

linkcheck: $(VENV)/test.stamp
	$(BIN)/sphinx-build -b linkcheck -q -D nb_execution_mode=off -d build/doctrees-links docs site/links

results: $(VENV)/base.stamp
	$(BIN)/python scripts/write_results.py
	$(BIN)/python benchmarks/judging_table.py
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

# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint bench bench-clipping bench-detection clean
.DEFAULT_GOAL := help

help:
	@echo "make demo              watch a network's gradients vanish, and another's not"
	@echo "make test              run the whole test suite"
	@echo "make lint              ruff and mypy"
	@echo "make bench             what watching costs, beside its peers (15 minutes)"
	@echo "make bench-clipping    what each clip policy does when something goes wrong (10 minutes)"
	@echo "make bench-detection   whether the rules are right, beside others' rules (15 minutes)"

$(VENV)/demo.stamp: pyproject.toml setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[demo]"
	touch $@

$(VENV)/dev.stamp: pyproject.toml setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[dev]"
	touch $@

demo: $(VENV)/demo.stamp
	$(BIN)/gradwatch demo $(STORY)

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n auto --dist worksteal

$(VENV)/bench.stamp: pyproject.toml setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[bench]"
	touch $@

bench: $(VENV)/bench.stamp
	$(BIN)/python -W ignore -m benchmarks --readme --json benchmarks/cost.json

bench-clipping: $(VENV)/demo.stamp
	$(BIN)/python -W ignore -m benchmarks.clipping --docs --json benchmarks/clipping.json

# The labels, an hour of training, are in benchmarks/detection/labels.json: python -m benchmarks.detection label
bench-detection: $(VENV)/demo.stamp
	$(BIN)/python -W ignore -m benchmarks.detection record --recordings build/detection
	$(BIN)/python -W ignore -m benchmarks.detection score --recordings build/detection --docs
	$(BIN)/python -W ignore -m benchmarks.detection diagnose --docs

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache build *.egg-info

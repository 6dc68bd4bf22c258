# make run    the tour, executed in a containerized kernel      make lab    the same in JupyterLab
# make test   checks and the whole test suite, three ways       make check  linters and types only
# make bench  the benchmarks (bench-quick: in a minute)         make docs   the documentation, as HTML
# make clean  what make has made    make pictures  the documentation's pictures, as the browser tests take them
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
SHELL := /bin/sh
.DELETE_ON_ERROR:
.PHONY: help run lab test check test-vm docs bench bench-quick pictures clean install-lab install-dev

help:
	@sed -n '1,4p' Makefile

$(VENV)/.made:
	@tools/prepare_machine $(PYTHON)
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.lab: $(VENV)/.made pyproject.toml
	@echo "installing nbhull with JupyterLab into $(VENV)"
	@$(PIP) install -e '.[lab]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@echo "installing nbhull and the development tools into $(VENV)"
	@$(PIP) install -e '.[lab,test,docs,dev]'
	@touch $@ $(VENV)/.lab

install-lab: $(VENV)/.lab
install-dev: $(VENV)/.dev

run: $(VENV)/.lab
	@$(BIN)/nbhull kernel install --sys-prefix
	@$(BIN)/python tools/run_tour.py

lab: $(VENV)/.lab
	@$(BIN)/nbhull kernel install --sys-prefix
	@$(BIN)/jupyter lab --notebook-dir=notebooks $$(test "$$(id -u)" != 0 || echo --allow-root)

check: $(VENV)/.dev
	@$(BIN)/python tools/check.py

test: $(VENV)/.dev
	@$(BIN)/python tools/run_tests.py

test-vm: $(VENV)/.dev
	@$(BIN)/python tools/test_vm.py

docs: $(VENV)/.dev
	@$(BIN)/sphinx-build -q -W --keep-going docs build/docs
	@echo "to read in a browser: build/docs/index.html"

bench: $(VENV)/.dev
	@$(BIN)/python benchmarks/run.py

bench-quick: $(VENV)/.dev
	@$(BIN)/python benchmarks/run.py --quick

pictures: $(VENV)/.dev
	@$(BIN)/python -m pytest -q tests/browser/test_panel.py tests/browser/test_lab.py
	@cd build/pictures && cp panel.png panel-dark.png memory-limit.png ../../docs/pictures

fuzz: $(VENV)/.dev
	@$(PIP) install -e '.[fuzz]'
	@$(BIN)/python tools/fuzz.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

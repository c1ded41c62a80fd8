# `make` lists the targets. Everything happens in .venv; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
# The versions that the committed numbers were made with; CONSTRAINTS= installs the newest instead.
CONSTRAINTS ?= constraints.txt
# More settings for the sweep: make table ARGS="attack=badnets,blended defense=none,nt_ml seed=0,1"
ARGS ?=
# What such settings say of where the sweep is, for its report.
named = $(patsubst $(1)=%,%,$(filter $(1)=%,$(ARGS)))
SWEEP = $(or $(call named,sweep),digits_table)
OUTPUTS = $(or $(call named,outputs),outputs)
# The kept table that it is checked against; where its settings are other ones, that is said and nothing is checked.
AGAINST ?= outputs/reference/digits_table
# How many faults `make test-faults` injects.
FAULTS ?= 60
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.DEFAULT_GOAL := help
.PHONY: help install table bench test test-faults test-slurm browser docs lint wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## make .venv and install the project into it

table: .venv/.installed ## run the sweep of the 6 x 6 table (stored cells are not run again), print it, write its report, check it against the kept one
	.venv/bin/ntml-bench -cd sweeps -cn digits_table $(ARGS)
	@.venv/bin/ntml-report $(SWEEP) --outputs $(OUTPUTS)
	@.venv/bin/ntml-table $(SWEEP) --outputs $(OUTPUTS) --against $(AGAINST) --brief || test $$? -le 2

bench: .venv/.installed ## time training, inference and sweeps on this machine (ARGS="--help" lists options)
	.venv/bin/python -m ntml_bench.bench $(ARGS)

test: .venv/.developed ## run the whole test suite
	.venv/bin/python -m pytest -n 3 --dist worksteal

test-faults: .venv/.developed ## two sweeps on one store under faults (kills, a full disk, a read-only one; FAULTS=60); prints the counts
	NTML_FAULTS=$(FAULTS) .venv/bin/python -m pytest -s tests/test_faults.py

test-slurm: .venv/.developed ## start a Slurm of two nodes here and test on it (root on Debian; installs Debian's Slurm)
	.venv/bin/python tests/slurm/cluster.py install
	.venv/bin/python -m pytest -m slurm

browser: ## install the browser that the report is tested in (root on Debian)
	command -v chromium > /dev/null || { apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium fonts-dejavu-core; }

docs: .venv/.installed ## write docs/methods.md from the methods' classes and YAML files
	.venv/bin/python -m ntml_bench.catalogue

lint: .venv/.developed ## ruff and pyright
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

wheel: .venv/.developed ## build the wheel into dist/
	.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove .venv and what was built; outputs/ stays
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis

.venv/.installed: pyproject.toml $(CONSTRAINTS)
	@test -x .venv/bin/python || { $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; make PYTHON=/path/to/python3.11 names one"; exit 1; }; $(PYTHON) -m venv .venv; }
	@echo "Installing into .venv (torch is some gigabytes the first time) ..."
	$(PIP) -e .
	@touch $@

.venv/.developed: .venv/.installed
	$(PIP) -e '.[dev,slurm]'
	@touch $@

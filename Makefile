# Everything here works on a machine with Python 3.11+, pip, make and git.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder
KINDS  := $(basename $(notdir $(wildcard flows/[a-z]*.py)))

.PHONY: help setup run up down status check fix test test-full $(KINDS:%=test-%) lock clean bench-reports bench-kill soak chaos

help:            ## this list
	@grep -E '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make .venv from constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Penstock needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --compile -c constraints.txt -e '.[demo,dev]'
	@touch $(STAMP)

run: setup       ## start everything, run the demo, show what came out
	@$(BIN)/penstock run

up: setup        ## start server, worker and listener
	@$(BIN)/penstock up

down:            ## stop exactly what `up` or `run` started
	@test ! -x $(BIN)/penstock || $(BIN)/penstock down

status:          ## tell what runs
	@$(BIN)/penstock status

check: setup     ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: setup       ## format and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup      ## the tests, under 8 minutes on 2 cores
	$(PYTEST) -m 'not full'

test-full: test  ## all tests: those, and then the slow ones
	$(PYTEST) -m full

$(KINDS:%=test-%): test-%: setup
	$(PYTEST) $(shell find tests -name 'test_$**.py')

test-%:          ## all tests of one kind of job: make test-spark
	@echo "make: no kind is called '$*'; there are $(KINDS)" >&2; exit 2

bench-reports: setup  ## what reports cost
	$(BIN)/python -m benchmarks.reports

bench-kill: setup ## 100 random kills: nothing is lost, nothing is left
	$(BIN)/python -m benchmarks.kill

soak: setup      ## 1,000 random kills
	$(BIN)/python -m benchmarks.kill --rounds 1000

chaos: setup     ## random kills before your eyes
	$(BIN)/python -m benchmarks.chaos

lock:            ## write constraints.txt anew from what resolves today
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet -e '.[demo,dev]'
	$(VENV)-lock/bin/python -m pip freeze --all --exclude pip --exclude-editable > constraints.txt
	rm -rf $(VENV)-lock

clean: down      ## forget everything this checkout made
	rm -rf $(VENV) .penstock .bench

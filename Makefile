# Everything runs in .venv, made from the package registry alone. `make` lists what there is.
# Nothing is compiled at installation: of some 24,000 modules those that are imported are compiled when they first are.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CASES  ?= case
# One more than processors: what waits for a signal, a lock or a page leaves them to the others.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# Without its caches pytest rewrites every test in each worker, a third of what it takes to start one.
unexport PYTHONDONTWRITEBYTECODE
# Of these files those with a mark: the others need not be imported.
marked = $(shell grep -lE 'mark.$(1)\b' $(2))
# Stores and checkpoints wait for the disk at every step of theirs; in memory, where there is room for them, they do not.
MEMORY = $(shell test "$$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 {print $$4}')" -ge 8000000 2>/dev/null && echo TMPDIR=/dev/shm)
PLACES = tests/faults tests/field $(call marked,faults,tests/test_*.py)

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test faults thorough slow browser docs lint type smoke overhead peers gpu bias judge parity readme clean

help:           ## this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.done        ## make .venv and install ditbench with what its tests need (several GB, one to three minutes)

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt --editable '.[test]'
	@touch $@

quickstart: setup           ## train and compare five schemes on four tasks (about 10 minutes on two cores)
	$(BIN)/ditbench run configs/quickstart.yaml

test: setup                 ## the tests that take no GPU and no minutes
	$(MEMORY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal $(if $(MARKS),-m '$(MARKS)')

faults: setup               ## every fault and every odd file that ditbench must survive, the slower ones too
	$(MEMORY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist worksteal \
	  -m '$(CASES) and not slow and not gpu and not browser' $(PLACES)

thorough: setup             ## what CI adds to them: products of options, simulations, whole commands
	$(MEMORY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal \
	  -m 'thorough and not slow and not gpu and not browser' $(call marked,thorough,tests/test_*.py tests/*/test_*.py)

slow: setup                 ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

browser: setup              ## the dashboard and the report in a real Chromium
	$(MEMORY) $(BIN)/python -m pytest -m browser $(call marked,browser,tests/test_*.py tests/*/test_*.py)

docs: $(VENV)/.docs         ## the documentation, built strictly into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(VENV)/.docs: $(VENV)/.done
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt --editable '.[docs]'
	@touch $@

lint: setup                 ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup                 ## mypy over both packages
	$(BIN)/mypy

smoke: setup                ## a matrix of two tiny cells, from plan to report, in a minute
	$(BIN)/ditbench run configs/smoke.yaml --root runs/smoke --fresh

overhead: setup             ## the harness's training step against a bare loop of the same, paired
	$(BIN)/python -m bench.studies.overhead
	$(BIN)/python -m bench.studies.overhead configs/quickstart.yaml

peers: setup                ## training steps of published systems against diffusers' models, paired
	$(BIN)/python -m bench.studies.peers

gpu:            ## what a GPU shows, in ten minutes: tests, every scheme's step, peers, tasks; into runs/gpu
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m bench.studies.gpu.everything --out runs/gpu

bias: setup                 ## how FID depends on the number of samples, and its limit (many minutes on two cores)
	$(BIN)/python -m bench.studies.bias --out results/bias

judge: setup                ## train the network that reads scenes, and write its card
	$(BIN)/python -m bench.measure.judge.train

parity: setup               ## how near published systems come to diffusers' models: results/parity.json
	$(BIN)/python -m pytest -q tests/test_published*.py -k theirs --parity results/parity.json

readme: setup               ## write the README's generated parts and figures
	$(BIN)/python -m bench.views.frontpage

clean:                      ## delete .venv and caches; results stay
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The two commands of the README are `make demo` and `make test`. Each sets everything up by itself;
# see tools/bootstrap.sh. PYTHON=... names an interpreter, ARGS=... goes to the command.
SHELL := /bin/bash
PY := .venv/bin/python
SOURCES := gsmap_core gsmap_ros launch test tools setup.py
PYTEST := $(PY) -m pytest -q -m "not slow and not gpu" -p no:launch_testing -p no:launch_ros

.PHONY: help demo test soak test-gpu weights build setup docs lint format typecheck clean distclean

help:
	@echo 'make demo       drive through a synthetic town, map it over ROS 2, look at out/demo/'
	@echo 'make test       linters, type checker and tests'
	@echo 'make soak       an hour of looping replay and the long fault tests; SECONDS_OF_REPLAY=600 for less'
	@echo 'make test-gpu   tests and timings that need a CUDA device'
	@echo 'make build      environment and ROS 2 messages only'
	@echo 'make weights    make the shipped checkpoints again: drives, trainings, scores, cards'
	@echo 'make lint       ruff and mypy     make format   ruff format'
	@echo 'make clean      remove what was built; make distclean removes .venv as well'

demo:
	@MAKE_GOAL=demo tools/bootstrap.sh runtime
	@.venv/bin/gsmap demo $(ARGS)

# See the script for DEVICE, MODEL, TOWNS, WIDTH, STEPS, BATCH, PROCESSES, INIT.
weights: setup
	@tools/make_weights.sh

build:
	@MAKE_GOAL=build tools/bootstrap.sh runtime

setup:
	@MAKE_GOAL=setup tools/bootstrap.sh test

lint: setup
	@$(PY) -m ruff check $(SOURCES)
	@$(PY) -m ruff format --check $(SOURCES)
	@$(PY) -m mypy

typecheck: setup
	@$(PY) -m mypy

format: setup
	@$(PY) -m ruff check --fix $(SOURCES)
	@$(PY) -m ruff format $(SOURCES)

test: lint
	@$(PYTEST) $(ARGS)

# Looping replay for that long, then a hundred lifecycles and every camera with every fault. The
# numbers of the replay are in out/soak/summary.json.
SECONDS_OF_REPLAY ?= 3600
soak: setup
	@GSMAP_SOAK_S=$(SECONDS_OF_REPLAY) $(PY) -m pytest -q -m soak -p no:launch_testing -p no:launch_ros $(ARGS)

# What needs a CUDA device: the tests that carry the marker, then the kernels against their references.
test-gpu: setup
	@$(PY) -m pytest -q -m gpu -p no:launch_testing -p no:launch_ros $(ARGS)
	@.venv/bin/gsmap bench raster --device cuda
	@.venv/bin/gsmap bench overhead --device cuda
	@.venv/bin/gsmap bench throughput --device cuda --formats fp32 bf16 compiled --batch 8 \
	  --models maptr_tiny gsmap_live_tiny maptr_r50 gsmap_live_r50

docs: setup
	@$(PY) tools/update_docs.py

clean:
	rm -rf build install log .pytest_cache .mypy_cache .ruff_cache *.egg-info

distclean: clean
	rm -rf .venv

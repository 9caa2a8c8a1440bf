# Everything sets up what it needs and reuses it the next time; `make` lists what there is.
PYTHON ?= python3
VENV ?= .venv
TRAINING_VENV ?= .venv-training
SECONDS ?= 20
BUNDLE ?=
PAIRS ?=

# A tool that the sourced ROS brings is not in the environment again, so its own folders on PATH stay behind.
IN_VENV = VIRTUAL_ENV="$(abspath $(VENV))" PATH="$(abspath $(VENV))/bin:$$PATH"
LINTED = vifa_runtime vifa_ros vifa_training launch benchmarks scripts tests setup.py
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help
.PHONY: help environment environment-training demo test lint test-robot test-training colcon clean distclean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 28
	@echo "variables: PYTHON=$(PYTHON) VENV=$(VENV) TRAINING_VENV=$(TRAINING_VENV); make demo also takes BUNDLE=name PAIRS=folder SECONDS=20"

environment:  ## the robot's environment in VENV: ROS 2 (a sourced one, else from PyPI), messages, libraries
	@$(PYTHON) scripts/environment.py robot --venv $(VENV)

environment-training:  ## the training environment in TRAINING_VENV: torch, no ROS
	@$(PYTHON) scripts/environment.py training --venv $(TRAINING_VENV)

demo: environment  ## two cameras into the node over ROS 2; writes demo/summary.json and demo/contact_sheet.png
	$(IN_VENV) vifa demo $(if $(BUNDLE),--bundle $(BUNDLE)) $(if $(PAIRS),--pairs $(PAIRS)) --seconds $(SECONDS) -o demo

test: lint test-robot test-training  ## linters, types and all tests, in both environments

lint: environment  ## ruff and mypy
	$(IN_VENV) ruff check $(wildcard $(LINTED))
	$(IN_VENV) ruff format --check $(wildcard $(LINTED))
	$(IN_VENV) python -m mypy

test-robot: environment  ## the tests of everything but training
	OMP_NUM_THREADS=2 $(IN_VENV) python -m pytest tests --ignore tests/training

test-training: environment-training  ## the tests of training
	OMP_NUM_THREADS=2 $(TRAINING_VENV)/bin/python -m pytest tests/training

colcon: environment  ## build with colcon into build/ and install/
	$(IN_VENV) colcon build --packages-select vifa --cmake-args -DPython3_EXECUTABLE=$(abspath $(VENV))/bin/python

clean:  ## remove what was built or recorded; the environments stay
	rm -rf build install log demo *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

distclean: clean  ## remove the environments too
	rm -rf $(foreach venv,$(VENV) $(TRAINING_VENV),$(venv) $(venv).lock $(venv).old)

# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Both make a virtual environment in .venv first; PYTHON names the interpreter to make it with.

PYTHON ?= python3
# The release that the tests run with. Any build will do, with or without CUDA.
TORCH ?= torch==2.13.0

# Python's compiled files are kept, whatever the shell says: tests start some hundred processes, and each
# would compile the program anew, a second and a half instead of half a one.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/ready

.PHONY: help demo panel test test-module test-slow lint benchmark clean

help:
	@echo "make demo       set up, then learn a structure of a real head from 5 labelled slices"
	@echo "make panel      set up, then show Slicer's panel with that head, without Slicer"
	@echo "make test       set up, then run all tests"
	@echo "make test-module  of these, only those of Slicer's module"
	@echo "make test-slow  the tests that take minutes each"
	@echo "make lint       style and types"
	@echo "make benchmark  figures on real images (DATA=folder)"
	@echo "make clean      remove what the others made"

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[development]"
	touch $@

demo: $(READY)
	$(RUN) -m SAMFineTuneLib.demo --output demo

# Tests of one file share what is slow to make, and so stay in one process. Files run in the order of
# their names: with those of few tests last, which take longest, one process waits for the other.
test: $(READY)
	$(RUN) -m pytest Testing -n 2 --dist loadfile --no-loadscope-reorder
	$(RUN) Testing/run_module_tests.py

test-module: $(READY)
	$(RUN) Testing/run_module_tests.py

panel: $(READY)
	$(RUN) -m Testing.host.open_panel

test-slow: $(READY)
	$(RUN) -m pytest Testing -m slow
	$(RUN) Testing/run_module_tests.py readme correction_script -- -m slow

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

DATA ?= ../shared/data
benchmark: $(READY)
	$(RUN) -m Testing.benchmarks.backbone_step
	$(RUN) -m Testing.benchmarks.abdomen --unet --data $(DATA)
	$(RUN) -m Testing.benchmarks.hippocampus --unet-size 64 --data $(DATA)
	$(RUN) -m Testing.benchmarks.zero_shot --data $(DATA)
	$(RUN) -m Testing.benchmarks.few_shot --data $(DATA)
	$(RUN) -m Testing.benchmarks.correction --data $(DATA)
	$(RUN) -m Testing.benchmarks.heads --data $(DATA)

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find SAMFineTune SAMFineTuneLib Testing -name __pycache__ -prune -exec rm -r {} +

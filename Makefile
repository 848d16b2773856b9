# make demo         the whole pipeline on a simulated cohort, in ./demo
# make sweep-demo   three configurations with two replicates each, scored by their loci, in ./sweep-demo
# make test         the tests
# make test-slow    the tests, and which twenty take longest
# All first make .venv and install the project into it.

VENV ?= .venv
OUT ?= demo
SWEEP_OUT ?= sweep-demo
PYTHON_IN := $(VENV)/bin/python

.PHONY: demo sweep-demo test test-slow lint types clean

demo: $(VENV)/.installed
	$(PYTHON_IN) -m udipdist demo out=$(OUT)

sweep-demo: $(VENV)/.installed
	$(PYTHON_IN) -m udipdist sweep-demo out=$(SWEEP_OUT)

PYTEST := $(PYTHON_IN) -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed lint
	$(PYTEST)

test-slow: $(VENV)/.installed
	$(PYTEST) --durations=20

lint: $(VENV)/.installed types
	$(PYTHON_IN) -m ruff check .
	$(PYTHON_IN) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache

types: $(VENV)/.installed
	$(PYTHON_IN) -m mypy

$(VENV)/.installed: pyproject.toml configs/constraints.txt launch/install.sh
	launch/install.sh $(VENV) test
	touch $@

clean:
	rm -rf $(VENV) demo sweep-demo build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

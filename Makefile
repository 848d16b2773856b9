# make demo         the whole pipeline on a simulated cohort, in ./demo
# make sweep-demo   three configurations with two replicates each, scored by their loci, in ./sweep-demo
# make test         what lint checks, and the tests
# make test-fast    the tests without the files that take long (tests/conftest.py names them)
# make test-slow    the tests, and which twenty take longest
# make lint         rules of style, of imports and of types
# make types        the types alone
# make format       put the sources into shape, and mend what can be mended without thinking
# make bench        the benchmarks one after the other, each in under a minute
# All first make .venv and install the project into it.

VENV ?= .venv
OUT ?= demo
SWEEP_OUT ?= sweep-demo
PYTHON_IN := $(VENV)/bin/python

BENCHMARKS := calibration export grm gwas interpret loci representations shared sweep train volumes

.PHONY: demo sweep-demo test test-fast test-slow lint types format bench clean

demo: $(VENV)/.installed
	$(PYTHON_IN) -m udipdist demo out=$(OUT)

sweep-demo: $(VENV)/.installed
	$(PYTHON_IN) -m udipdist sweep-demo out=$(SWEEP_OUT)

PYTEST := $(PYTHON_IN) -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed lint
	$(PYTEST)

test-fast: $(VENV)/.installed
	$(PYTEST) -m "not cluster and not slow"

test-slow: $(VENV)/.installed
	$(PYTEST) --durations=20

lint: $(VENV)/.installed types
	$(PYTHON_IN) -m ruff check .
	$(PYTHON_IN) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache

types: $(VENV)/.installed
	$(PYTHON_IN) -m mypy

format: $(VENV)/.installed
	$(PYTHON_IN) -m ruff check --fix .
	$(PYTHON_IN) -m ruff format .

bench: $(VENV)/.installed
	set -e; for name in $(BENCHMARKS); do $(PYTHON_IN) -m benchmarks.$$name --quick; done

$(VENV)/.installed: pyproject.toml configs/constraints.txt launch/install.sh
	launch/install.sh $(VENV) test
	touch $@

clean:
	rm -rf $(VENV) demo sweep-demo build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

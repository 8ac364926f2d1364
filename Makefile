# Two commands to know: `make demo` (the whole loop, small, with real services) and `make test`.
# For those who change it: `make check` after every edit, `make test-all` before a release.
# Python 3.11 to 3.13: the first of these that starts, or the one given by PYTHON=.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c '' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
LABEL_STUDIO := .venv-label-studio
CHECKED := editloop infra annotation components pipelines tests

# Three workers for two cores (tests wait for services), each with services of its own; a file of tests stays with one of
# them. Bytecode is written, wherever that is switched off: tests start many processes of our own code.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# mypy by itself keeps a cache. Where it also counts the untyped expressions it keeps none, so only the whole test does that.
TYPES = $(BIN)/mypy
test test-all: TYPES = $(BIN)/python -m tests.typing_share

.PHONY: setup demo check test test-pythons test-all lint style types generate bench chaos fuzz mutants debian chromium postgresql load audit

# The last line migrates the services' empty databases once, for every first start to copy; it is quick when they are there.
setup:
	@$(MAKE) --no-print-directory --jobs=2 .venv/stamp $(LABEL_STUDIO)/stamp
	@$(BIN)/python -m infra.service_databases

.venv/stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(LABEL_STUDIO)/stamp: constraints-label-studio.txt
	$(PYTHON) -m venv $(LABEL_STUDIO)
	$(LABEL_STUDIO)/bin/python -m pip install --quiet --upgrade pip
	$(LABEL_STUDIO)/bin/python -m pip install --quiet --constraint constraints-label-studio.txt label-studio gunicorn
	touch $@

demo: setup
	$(BIN)/editloop demo --out runs/demo

# The type check takes one core as long as all the rest takes another.
lint: setup
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target TYPES="$(TYPES)" style types

types:
	$(TYPES)

style:
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/lint-imports
	$(BIN)/python -m tests.naming
	$(BIN)/python -m pipelines.generation --check
	$(BIN)/python -m tests.api_reference --check

# What follows from the declarations of stages and pipelines (KFP components, compiled pipelines, dvc.yaml, docs/stages.md),
# and from the docstrings (docs/api.md).
generate: setup
	$(BIN)/python -m pipelines.generation
	$(BIN)/python -m tests.api_reference

# For every edit: under two minutes.
check: lint
	$(PYTEST) -q -m "not slow and not extended" tests/unit

# What a change must pass.
test: debian lint
	$(PYTEST) -m "not extended"

# The unit tests that need no torch, on the other Pythons that EditLoop supports and this machine has.
test-pythons: setup
	$(BIN)/python -m tests.pythons

# Scale, long races, repeated faults, the other Pythons, and the tests that compare floats on other kernels.
test-all: debian lint
	$(PYTEST) --timeout 1800
	$(BIN)/python -m tests.pythons
	$(BIN)/python -m tests.variants

bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.performance.bench

# The loop broken at random moments and called again (docs/chaos.md).
chaos: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos --table docs/chaos.md

# Parsers of files from outside and the reward server, fuzzed for SECONDS each (docs/tests.md).
fuzz: SECONDS ?= 600
fuzz: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seconds $(SECONDS)

# What a large team asks of the services and of our code (docs/load.md).
load: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.load

# One-token mistakes in the maths and decision modules: 90 % must make a test fail (docs/mutation-checks.md).
mutants: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation

# Advisories about the locked packages (SECURITY.md). One that could not be looked up is a failure too.
audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	for lock in constraints.txt constraints-label-studio.txt; do \
		.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement $$lock || failed=1; \
	done; test -z "$$failed"

# The packages that tests need come while the environments are made.
debian:
	@$(MAKE) --no-print-directory --jobs=3 .venv/stamp $(LABEL_STUDIO)/stamp postgresql

# The browser test drives Debian's own Chromium; elsewhere any chromium or google-chrome on the PATH will do.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else \
		echo "The browser test needs chromium: install it (Debian: apt-get install chromium) and run make test again."; exit 1; \
	fi

# Tests start a PostgreSQL of their own; Debian's package starts one too, unless it is told not to. Debian installs one
# package at a time.
postgresql: chromium
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		mkdir -p /etc/postgresql-common/createcluster.d && \
		echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/no-main-cluster.conf && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql >/dev/null; \
	else \
		echo "Without PostgreSQL (Debian: apt-get install postgresql), tests/integration/test_cluster_services.py is skipped."; \
	fi

# TokMesh: build, run, test. `make help` lists the targets. Everything made here lands in .venv, build, dist or benchmarks/out.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

# The first interpreter that is new enough; `make PYTHON=python3.13 …` to choose another.
# Looked for again where the caller found none: a target may have installed it in between.
ifeq ($(PYTHON),)
override PYTHON := $(shell .ci/python)
endif
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
CONSTRAINTS := requirements/constraints.txt
INSTALL := $(PIP) install --no-compile -c $(CONSTRAINTS)
WHEELS := dist
ARGS ?=
# Half again as many processes as cores: many a test waits for a process. A file's tests stay together and in order: some share a
# server; long files come first (tests/conftest.py). `make test ARGS="-n 0"` runs them one after the other, in one process.
ON_ALL_CORES := -n $(shell cores=$$(nproc); echo $$((cores < 6 ? (cores * 3 + 1) / 2 : 8))) --dist=loadfile --no-loadscope-reorder
# Tests on real clusters that mostly wait, up to a minute or two each, and those of what the tests of clusters are made with.
SLOW := $(addprefix tests/cluster/,$(addsuffix .py,test_bad_connections test_clocks test_full_nats test_idle_limits \
	test_idle_limits_of_the_suspended test_namespaces test_nats_harness test_power_cuts test_reseed_parts test_tables_differ))
EXTRA ?= top,otel,encryption
COUNT ?= 200
SCALE ?= 1

export PYTHON VENV

.DEFAULT_GOAL := help
.PHONY: help extra packages run cluster build test slow lint tidy asan kills torture torture-cluster mutants screenshot bench bench-storage bench-cluster wheel wheels annotate constraints image clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

# An environment that can build and run; `-e` makes it see the sources of this tree, whose modules the target build makes.
$(VENV)/stamp-run: pyproject.toml $(CONSTRAINTS)
	@.ci/packages build
	@echo "Preparing $(VENV) (once)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) setuptools cython
	@TOKMESH_BUILD=none $(INSTALL) --no-build-isolation -e .
	@touch $@

$(VENV)/stamp-dev: $(VENV)/stamp-run
	@TOKMESH_BUILD=none $(INSTALL) --no-build-isolation -e '.[test,lint,bench]'
	@touch $@

build: $(VENV)/stamp-run  ## build the extension modules in place (TOKMESH_BUILD=release|debug)
	@$(BIN)/python setup.py -q build_ext --inplace

run: build  ## build and start a server on 127.0.0.1:5080; options: make run ARGS="--server.http.address=127.0.0.1:6080"
	@.ci/first_steps $(BIN)/tokmesh $(ARGS)
	@exec $(BIN)/tokmesh serve $(ARGS)

cluster: $(VENV)/stamp-dev build  ## three nodes and three NATS servers on loopback, to try until Ctrl-C; ARGS="--port=6081" for other ports
	@exec $(BIN)/python -m tests.cluster.trial $(ARGS)

extra: $(VENV)/stamp-run  ## install what is optional: make extra EXTRA=top (or otel, or encryption; all of them by default)
	@TOKMESH_BUILD=none $(INSTALL) --no-build-isolation -e '.[$(EXTRA)]'

packages:
	@.ci/packages test install

test: packages  ## everything a change must pass: lint, the core under sanitizers, house rules, all tests
	@$(MAKE) -j2 $(VENV)/stamp-dev build
	@$(MAKE) -j2 --output-sync=target lint asan
	@$(BIN)/python -m pytest -p tests.tidy.no_skips $(ON_ALL_CORES) $(addprefix --ignore=,$(SLOW)) $(ARGS)

slow: packages  ## tests that `make test` leaves out because they mostly wait; as root
	@$(MAKE) -j2 $(VENV)/stamp-dev build
	@$(BIN)/python -m pytest -p tests.tidy.no_skips $(ON_ALL_CORES) $(SLOW) $(ARGS)

lint: $(VENV)/stamp-dev  ## ruff, mypy --strict, cython-lint (warnings of Cython and C end a build)
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PATH=$(abspath $(BIN)):$$PATH cython-lint tokmesh

tidy: $(VENV)/stamp-dev build  ## the house rules alone
	@$(BIN)/python -m pytest -q tests/tidy

asan: $(VENV)/stamp-dev  ## unit and model tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@.ci/asan $(ON_ALL_CORES) $(ARGS)

kills: packages  ## SIGKILL a server COUNT times (200) during a write load; every acknowledged change must be found again
	@$(MAKE) $(VENV)/stamp-dev build
	@$(BIN)/python -m tests.crash.server_kills --count $(COUNT) $(ARGS)

torture: packages  ## every fault that storage must survive, and a table: hours at SCALE=1, minutes at SCALE=0.01; as root
	@$(MAKE) $(VENV)/stamp-dev build
	@$(BIN)/python -m tests.crash.torture --scale $(SCALE) $(ARGS)

torture-cluster: packages  ## every fault that a cluster must survive, and a table: hours at SCALE=1, minutes at SCALE=0.01; as root
	@$(MAKE) $(VENV)/stamp-dev build
	@$(BIN)/python -m tests.cluster.torture --scale $(SCALE) $(ARGS)

mutants: packages  ## plant each known defect in a copy of the tree; its tests must fail
	@$(MAKE) $(VENV)/stamp-dev build
	@$(BIN)/python -m tests.mutants $(ARGS)

screenshot: packages  ## draw docs/console.png anew: the status page of a server under a little load, in headless Chromium
	@$(MAKE) $(VENV)/stamp-dev build
	@$(BIN)/python -m tests.observability.console_screenshot docs/console.png

bench: packages  ## benchmarks, side by side with yardsticks: table, JSON, picture
	@$(MAKE) $(VENV)/stamp-dev build
	@$(BIN)/python -m benchmarks $(ARGS)

bench-storage: packages  ## with millions of sessions: memory and start beside Redis, snapshots, expiry, growth
	@$(MAKE) $(VENV)/stamp-dev build
	@$(BIN)/python -m benchmarks.storage $(ARGS)

bench-cluster: packages  ## a node of three beside a node alone: validate, revocations; a fresh node of SCALE million sessions
	@$(MAKE) $(VENV)/stamp-dev build
	@$(BIN)/python -m benchmarks.cluster --scale $(SCALE) $(ARGS)

wheel: $(VENV)/stamp-run  ## build dist/tokmesh-*.whl for the interpreter of .venv
	@rm -rf build/lib.* build/bdist.*
	@$(PIP) wheel --no-deps -w $(WHEELS) .
	@ls $(WHEELS)/*.whl

wheels:  ## build, install and try a wheel for every CPython 3.11, 3.12, 3.13 found
	@.ci/wheels $(WHEELS)

annotate: $(VENV)/stamp-run  ## Cython's annotated sources (yellow: Python is called) in build/annotate/*.html
	@TOKMESH_ANNOTATE=1 $(BIN)/python setup.py -q build_ext --force --build-lib build/annotated-lib
	@rm -rf build/annotate && mkdir -p build/annotate && find build/cython-* -name '*.html' -exec cp {} build/annotate/ \;
	@ls build/annotate/*.html

constraints:  ## raise requirements/constraints.txt to the newest releases that pyproject.toml admits
	@.ci/constraints

image:  ## build and try the Docker image without Docker: root, buildah and debootstrap (docs/development.md)
	@.ci/image

clean:  ## remove what was built, keeping data directories
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f tokmesh/_core/*.so tokmesh/_core/*.c tokmesh/_core/*.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

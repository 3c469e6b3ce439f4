# make help   says what there is; everything needed is put into .venv first.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

ARGS ?=
ONLY ?=
# The first of these that is new enough; `make PYTHON=...` decides otherwise.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	command -v "$$python" && break; done)
BIN := .venv/bin
PROTO := scriptops/controller/v1/controller.proto

# $(call protoc,FOLDER) writes the generated code of the protocol into FOLDER.
protoc = $(BIN)/python -m grpc_tools.protoc -I proto \
	--python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) $(PROTO)

# How long each target is fed.
FUZZ_SECONDS ?= 600

# How many processes are killed.
CHAOS_ROUNDS ?= 1000

# How long it is worked.
SOAK_SECONDS ?= 3600

.PHONY: help demo test fuzz chaos soak patchgap verify generate web bundles bench clean

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: .venv/.run ## Show it all at work; ARGS=--once for one round
	$(BIN)/scriptops demo $(ARGS)

test: .venv/.dev ## Run all tests; ARGS goes to pytest
	tests/support/setup.sh
	$(BIN)/python -m pytest $(ARGS)

fuzz: .venv/.dev ## Feed what reads strangers' bytes; FUZZ_SECONDS=600 for each
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/fuzz $(ARGS)

chaos: .venv/.dev ## Kill controllers and executors; CHAOS_ROUNDS=1000, CHAOS_SEED=6
	tests/support/setup.sh
	CHAOS_ROUNDS=$(CHAOS_ROUNDS) $(BIN)/python -m pytest tests/chaos/test_chaos.py $(ARGS)

soak: .venv/.dev ## Work for an hour and see what stays; SOAK_SECONDS=3600
	tests/support/setup.sh
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -s tests/chaos/test_soak.py $(ARGS)

patchgap: .venv/.dev ## Warn of engines whose newer release is a month old (asks pypi.org)
	$(BIN)/python -m tests.support.patchgap

verify: .venv/.dev ## Check format, lint, types, import law and generated files
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m reconciler.schemagen --check
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && $(call protoc,"$$folder") && \
	diff -r -x __init__.py -x __pycache__ "$$folder" proto/gen && echo "proto/gen is current" || \
	{ echo "proto/gen is not current: make generate" >&2; exit 1; }

generate: .venv/.dev ## Write CRDs, schemas, reference pages and the protocol's code
	$(BIN)/python -m reconciler.schemagen
	$(BIN)/python -m reconciler.cli.reference
	$(call protoc,proto/gen)

web: ## Bundle the Web APIs of rules again (needs npm)
	cd executor/engines/js/web && npm ci --no-audit --no-fund && npm run build

bundles: ## Write what links and bundles rules, from npm
	for folder in executor/engines/js/linker reconciler/adapters/bundling \
		reconciler/adapters/analysis \
		reconciler/adapters/coverage/npm; do \
		(cd "$$folder" && npm ci --ignore-scripts && npm run build); done

bench: .venv/.dev ## Measure, beside references; ONLY=sync for one
	tests/support/setup.sh
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY))

clean: ## Remove .venv and what was built
	rm -rf .venv build dist

# What runs. Made anew when the dependencies change, so that none of the old ones stays.
.venv/.run: pyproject.toml
	@if [[ -z "$(PYTHON)" ]]; then \
		echo "scriptops needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; fi
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; \
		exit 1; }
	"$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

# What tests and checks need besides.
.venv/.dev: .venv/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

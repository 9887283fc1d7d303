.DEFAULT_GOAL := help
.PHONY: help up down test unit lint bench clean prepared

BIN := .venv/bin
# The first Python that will do; `make up PYTHON=…` chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

# What is built for an installation (newer versions of pip ask for the second) has its versions pinned as well.
export PIP_CONSTRAINT := $(CURDIR)/requirements-dev.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/requirements-dev.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some images of Python set it, for the sake of their size: each process would compile every module again.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --quiet --no-input
# Three files of tests at a time, also on two processors: much of a lab's time is waiting for its engine.
# They start in the order of tests/order.py.
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder

help: ## Show what can be made.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

up: ## Bring up a lab from nothing, send a first mail across it, and read it.
	@$(MAKE) --no-print-directory --jobs=2 .venv/.installed prepared
	@$(BIN)/mailstack provision
	@$(BIN)/mailstack up
	@$(BIN)/mailstack send --via sender --from student@example.com --to bob@example.com \
		--subject "CCN Lab" --body "This is the first mail of the lab"
	@$(BIN)/mailstack read bob@example.com

down: .venv/.installed ## Take the lab down, with its mail.
	@$(BIN)/mailstack down

test: .venv/.developing ## Run all tests; an engine, a browser and testssl.sh are installed where they are missing.
	@$(BIN)/mailstack provision
	@# The images are built now, so that no test's deadline has their build in it. The lab's name is nobody else's.
	@lab=for-tests-$$$$; $(BIN)/mailstack up -n $$lab >/dev/null || true; $(BIN)/mailstack down -n $$lab || true
	@tests/provision || true # tests say what they miss
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) --require-engine

unit: .venv/.developing ## Run the tests that need neither an engine nor other processes.
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/unit

lint: .venv/.developing ## Check form and types.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict
	@$(BIN)/lint-imports --no-logo

bench: .venv/.developing ## Measure start-up, latency, throughput and more: docs/benchmarks.md.
	@$(BIN)/mailstack provision
	@$(BIN)/python -m tests.bench --json artifacts/bench.json

clean: ## Take the lab down, and remove what was made in this folder.
	@if [ -x $(BIN)/mailstack ]; then $(BIN)/mailstack down || true; fi
	@rm -rf .venv dist build artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find mailstack tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml requirements-dev.txt
	$(call make_venv)
	@echo "installing mailstack into .venv"
	@$(PIP) install --editable '.[compose]'
	@touch $@

.venv/.developing: pyproject.toml requirements-dev.txt
	$(call make_venv)
	@echo "installing mailstack and its tools into .venv"
	@$(PIP) install --requirement requirements-dev.txt --editable '.[compose]'
	@touch $@ .venv/.installed

# The engine and the base image, which need nothing of what pip installs.
prepared:
	@if [ -n "$(PYTHON)" ]; then $(PYTHON) -m mailstack.host.prepare; fi

define make_venv
@if [ ! -x $(BIN)/pip ]; then \
	python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
		echo "mailstack needs Python 3.11 or newer with its modules venv and ensurepip, and there is none." >&2; \
		echo "On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; \
		exit 3; \
	fi; \
	echo "making .venv with $$python"; \
	$$python -m venv --clear .venv; \
fi
endef

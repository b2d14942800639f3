# `make` lists what there is. It needs git, make and Python >= 3.11; the rest goes into .venv.
#   make test PYTHON=/path/to/python      another Python (after `make clean`)

VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.runs
DEV := $(VENV)/.develops

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test crash soak check fix bench build clean

help:  # this list
	@grep -E '^[a-z]+:.*  # ' Makefile | sed -E 's/^([a-z]+):.*  # (.*)/make \1|\2/' \
		| while IFS='|' read -r name text; do printf '%-12s %s\n' "$$name" "$$text"; done

demo: $(RUN)  # MQTT messages become a JSON file, for ten seconds
	$(BIN)/rxflow demo

test: $(DEV)  # all tests, with the coverage they must reach; 5 minutes
	@echo 'About five minutes on two cores; a busy machine takes longer, and passes too.'
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

crash: $(DEV)  # the whole battery of crashes, power cuts and failing disks, with its controls
	RXFLOW_CRASH=1 $(BIN)/python -m pytest tests/battery tests/outside -rs -o faulthandler_timeout=900

soak: $(DEV)  # a thousand kills, thousands of power cuts, a day of faults; a number makes it shorter
	RXFLOW_SOAK=1 $(BIN)/python -m pytest tests/soak -s -rs -o faulthandler_timeout=0

check: $(DEV)  # format, lint, types and layers; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

fix: $(DEV)  # format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(RUN)  # rxflow beside its peers, and whether the goals are met; 17 minutes
	$(BIN)/python benchmarks/bench.py --folder build/bench

build: $(DEV)  # wheel and source archive, in dist/
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m pip install --quiet hatchling
	$(BIN)/hatchling build --target sdist

clean:  # remove what make, the tests and the demo have made
	rm -rf $(VENV) build dist files .coverage .coverage.* .hypothesis .mypy_cache \
		.pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The newest Python that is new enough and can make an environment, unless PYTHON says which.
$(BIN)/python:
	@for python in $(or $(PYTHON),python3.15 python3.14 python3.13 python3.12 python3.11 python3); do \
		"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null || continue; \
		echo "$$python -m venv $(VENV)"; \
		rm -rf $(VENV); \
		"$$python" -m venv $(VENV) && exit 0; \
	done; \
	echo 'rxflow needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv).' >&2; \
	echo 'None of these is: $(or $(PYTHON),python3.15 python3.14 python3.13 python3.12 python3.11 python3).' >&2; \
	echo 'Name one: make PYTHON=/path/to/python ...' >&2; \
	exit 1

$(RUN): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[broker,websocket]'
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[broker,websocket]' --group dev
	@touch $(RUN) $@

# `make help` lists the targets. Everything lives in .venv; nothing else is touched.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.ONESHELL:
MAKEFLAGS += --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# One thread each by default: the tests start several processes, and pools that outnumber the
# cores wait for each other many times longer than they compute.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export ARGS

# The first interpreter that is new enough and can make virtual environments.
# Override with `make venv PYTHON=/path/to/python3`.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && command -v "$$p" && break; done)

# The lower bound of a requirement, as setup.cfg has it.
bound = $(shell sed -nE 's/^ +($(1)>=[0-9.]+)$$/\1/p' setup.cfg)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: venv
venv: $(STAMP) ## Build .venv with everything; does nothing when nothing changed

$(STAMP): setup.cfg pyproject.toml
	@if [ -z "$(PYTHON)" ] && [ ! -x $(PY) ]; then
		echo "No Python 3.11 or newer with the venv module was found. Install one" >&2
		echo "(Debian, Ubuntu: apt-get install python3 python3-venv), or name one:" >&2
		echo "    make venv PYTHON=/path/to/python3" >&2
		exit 1
	fi
	if [ ! -x $(PY) ]; then
		echo "[1/5] Making $(VENV) with $(PYTHON)"
		"$(PYTHON)" -m venv $(VENV)
	fi
	if [ ! -x $(VENV)/bin/uv ]; then
		echo "[2/5] Installing uv, the fast installer"
		$(PY) -m pip install --quiet uv || echo "    not available; pip will do"
	fi
	# uv does not read pip's settings: hand it the index that pip is told to use.
	index="$${PIP_INDEX_URL:-$$($(PY) -m pip config get global.index-url 2>/dev/null || true)}"
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"; fi
	install() {
		if [ -x $(VENV)/bin/uv ]; then
			$(VENV)/bin/uv pip install --python $(PY) "$$@" && return
			echo "    uv could not; trying again with pip"
		fi
		$(PY) -m pip install "$$@"
	}
	# Together, so that they come from one source: a CPU-only torch that happens to lie in a
	# folder of wheels does not load beside the index's torchvision.
	echo "[3/5] Installing torch and torchvision (the longest step)"
	install "$(call bound,torch)" "$(call bound,torchvision)"
	# Against the torch just installed. Its CUDA extension is for post-processing not used here.
	echo "[4/5] Building sam2"
	install setuptools wheel
	SAM2_BUILD_CUDA=0 install --no-build-isolation "$(call bound,sam2)"
	echo "[5/5] Installing this project with its development and training extras"
	install --editable ".[dev,train]"
	touch $(STAMP)
	echo "Ready: $(VENV)/bin/segzero --help"

.PHONY: demo
demo: venv ## Label Studio with pre-annotated pictures; FRESH=1 anew, ONCE=1 stops when they are there
	@exec $(PY) -m backend.demo $(if $(FRESH),--fresh) $(if $(ONCE),--once)

.PHONY: demo-correct
demo-correct: venv ## Correct the demo's evening scenes, wait for training, compare
	@eval "exec $(PY) -m backend.demo.correct $${ARGS:-}"

.PHONY: test
test: venv ## All tests; narrow them with ARGS="-m 'not e2e' tests/segzero_ml"
	@have() { for name; do command -v "$$name" >/dev/null && return; done; return 1; }
	if ! have chromedriver || ! have chromium chromium-browser google-chrome; then
		echo "The browser tests need Chromium and its driver, which are missing here:" >&2
		echo "    apt-get install chromium chromium-driver" >&2
		echo "Everything else: make test ARGS=\"-m 'not e2e'\"" >&2
		case "$${ARGS:-}" in *"not e2e"*) ;; *) exit 1 ;; esac
	fi
	eval "exec $(PY) -m pytest $${ARGS:-}"

.PHONY: check
check: venv ## Style, types and import direction
	@status=0
	step() { echo "$$1"; shift; "$$@" || status=1; }
	step "ruff check" $(VENV)/bin/ruff check --quiet .
	step "ruff format" $(VENV)/bin/ruff format --quiet --check .
	step "mypy --strict" $(VENV)/bin/mypy
	step "import-linter" $(VENV)/bin/lint-imports --no-logo
	exit $$status

.PHONY: bench
bench: venv ## Time and memory of the main path on this machine
	@exec $(PY) -m pytest -s $${ARGS:-tests/benchmarks}

.PHONY: bench-learning
bench-learning: venv ## Show that corrections make a better model: three seeds, an hour or more
	@eval "exec $(PY) -m tests.benchmarks.learning $${ARGS:-}"

.PHONY: docs
docs: venv ## Write docs/settings.md anew from the settings
	@exec $(PY) -m tests.settings_page

.PHONY: fmt
fmt: venv ## Put the sources in order: imports, layout, what ruff can mend by itself
	@$(VENV)/bin/ruff check --fix-only --quiet .
	$(VENV)/bin/ruff format .

.PHONY: clean
clean: ## Remove caches and build products; keeps .venv and .demo
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -type d \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +

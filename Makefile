# What can be made, and with which variables: `make help`. All share one virtual environment, made on first use; ruff and
# the documentation have their own.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch<2.14
BUNDLE ?= m3ae
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
LINT_VENV ?= .venv-lint
DOCS_VENV ?= .venv-docs
SITE ?= site
STUDIES ?=
RUFF = $(shell sed -n 's/.*"\(ruff==[^"]*\)".*/\1/p' pyproject.toml)
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -rfEs --disable-warnings

.PHONY: help install train test test-all fuzz gpu-report configs words format lint label test-label attack docs clean FORCE

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20
	@echo 'Variables: BUNDLE=$(BUNDLE) JOBS=$(JOBS) TORCH="$(TORCH)" PYTHON=$(PYTHON) VENV=$(VENV) STUDIES=$(STUDIES)'

install: $(VENV)/.installed-test ## the package and what its tests need, into .venv

# glibc keeps freed memory for the next tensor (docs/times.md).
train: $(VENV)/.installed ## train BUNDLE on the synthetic phantom, in minutes
	MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=536870912 MALLOC_TOP_PAD_=67108864 \
		$(VENV)/bin/python -m monai.bundle run --config_file bundles/$(BUNDLE)/configs/train.json

# One test process per core, each with one thread: files are shared out, so that fixtures of a file are made once.
test: $(VENV)/.installed-test ## the fast tests, JOBS at a time
	$(PYTEST) -m "not slow"

test-all: test ## the fast tests, then the slow ones
	$(PYTEST) -m slow

fuzz: $(VENV)/.installed-test ## hostile input, for ten minutes
	FUZZ_TRIES=300 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/fuzz tests/clinic/server/test_fuzzed_requests.py

gpu-report: $(VENV)/.installed-test ## what the papers' trainings cost on a GPU
	$(VENV)/bin/python tests/bench/gpu_report.py build/gpu_report

configs: $(VENV)/.installed ## the bundles' configs, from bundles/base and their paper.json
	$(VENV)/bin/python -m tools.configs

words: $(VENV)/.installed ## the words of each page, and how many it may have
	$(VENV)/bin/python -m tools words

format: $(LINT_VENV)/.installed ## ruff's corrections and format
	$(LINT_VENV)/bin/ruff check --fix .
	$(LINT_VENV)/bin/ruff format .

# ruff needs no PyTorch and fails in seconds; mypy reads the types of what is installed.
lint: $(LINT_VENV)/.installed $(VENV)/.installed-test ## ruff's checks, then mypy's
	$(LINT_VENV)/bin/ruff check .
	$(LINT_VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# STUDIES: a folder with a subfolder for each study; by default an example.
label: $(VENV)/.installed-clinic ## serve the bundles on a page, and to 3D Slicer
	$(VENV)/bin/mmb serve $(if $(STUDIES),--studies "$(STUDIES)")

# Those that need Debian's orthanc, orthanc-dicomweb and chromium are skipped without them.
test-label: $(VENV)/.installed-test ## the tests of that server
	$(PYTEST) -m "not slow" tests/clinic/server

# Those behind a web server need Debian's nginx-light.
attack: $(VENV)/.installed-test ## attacks on that server, and how long others wait meanwhile
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -rsP -m slow tests/clinic/server/test_attacks.py

# The reference is read from the sources, so neither PyTorch nor MONAI is installed. A broken link is an error. REPO_URL:
# URL of the repository, for links to it and to edit a page; SITE_URL: URL of the site, for its sitemap.
docs: $(DOCS_VENV)/.installed ## the documentation site, into SITE
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --site-dir "$(SITE)"

clean: ## remove the environments and what was built
	rm -rf $(VENV) $(LINT_VENV) $(DOCS_VENV) $(SITE) build dist *.egg-info .pytest_cache .ruff_cache

# Stamps: an installation is repeated only when pyproject.toml or TORCH has changed.
%/.torch: FORCE
	@mkdir -p $(@D) && { echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@; }

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install "$(TORCH)" -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml $(VENV)/.torch
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install "$(TORCH)" -e ".[test]"
	touch $@

$(VENV)/.installed-clinic: pyproject.toml $(VENV)/.torch
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install "$(TORCH)" -e ".[clinic]"
	touch $@

$(LINT_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LINT_VENV)
	$(LINT_VENV)/bin/python -m pip install "$(RUFF)"
	touch $@

$(DOCS_VENV)/.installed: Makefile
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install "mkdocs-material>=9.6,<10" "mkdocstrings[python]>=0.29,<2" "$(RUFF)"
	touch $@

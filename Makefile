# `make train` and `make test` work on a fresh clone. They share one virtual environment, made on first use; what serves
# the bundles to viewers (`make label`) has its own.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch>=2.6,<2.14
BUNDLE ?= m3ae
JOBS ?= 2
LABEL_VENV ?= .venv-label
DOCS_VENV ?= .venv-docs
SITE ?= site
STUDIES ?=
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 20

.PHONY: train test test-all fuzz lint label test-label docs clean

train: $(VENV)/.installed
	$(VENV)/bin/python -m monai.bundle run --config_file bundles/$(BUNDLE)/configs/train.json

# One test process per core, each with one thread: files are shared out, so that fixtures of a file are made once.
test: $(VENV)/.installed-test
	$(PYTEST) -m "not slow"

test-all: test
	$(PYTEST) -m slow

# Hostile input for ten minutes; prints how many tries were refused, benign, silently wrong or crashed.
fuzz: $(VENV)/.installed-test $(LABEL_VENV)/.installed-test
	FUZZ_TRIES=300 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/fuzz
	FUZZ_TRIES=300 OMP_NUM_THREADS=1 $(LABEL_VENV)/bin/python -m pytest tests/clinic/server/test_fuzzed_requests.py

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# STUDIES: a folder with a subfolder for each study, or the URL of a DICOMweb archive; without it a phantom is made.
label: $(LABEL_VENV)/.installed
	OMP_WAIT_POLICY=PASSIVE $(LABEL_VENV)/bin/python -m clinic.server $(if $(STUDIES),--studies "$(STUDIES)")

# Those that need Debian's orthanc, orthanc-dicomweb and chromium are skipped without them.
test-label: $(LABEL_VENV)/.installed-test
	OMP_NUM_THREADS=1 $(LABEL_VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile -rs tests/clinic/server

# The documentation site. The reference is read from the sources, so neither PyTorch nor MONAI is installed. A broken link is
# an error. REPO_URL: URL of the repository, for links to files that are not in the site.
docs: $(DOCS_VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict --site-dir "$(SITE)"

clean:
	rm -rf $(VENV) $(LABEL_VENV) $(DOCS_VENV) $(SITE) build dist *.egg-info .pytest_cache .ruff_cache

# Stamps: an installation is repeated only when pyproject.toml has changed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install "$(TORCH)" -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install "$(TORCH)" -e ".[test]"
	touch $@

# Of MONAI Label only its build of OHIF is used, which no other package has; so none of its requirements.
$(LABEL_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_VENV)/bin/python -m pip install "$(TORCH)" -e ".[label]"
	$(LABEL_VENV)/bin/python -m pip install --no-deps monailabel==0.8.5
	touch $@

$(LABEL_VENV)/.installed-test: $(LABEL_VENV)/.installed
	$(LABEL_VENV)/bin/python -m pip install "pytest>=8" "pytest-xdist>=3.5" "websocket-client>=1.8" "hypothesis>=6.100"
	touch $@

$(DOCS_VENV)/.installed: Makefile
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install "mkdocs-material>=9.6,<10" "mkdocstrings[python]>=0.29,<2"
	touch $@

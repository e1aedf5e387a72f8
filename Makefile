# `make train` and `make test` work on a fresh clone. They share one virtual environment, made on first use.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch>=2.6,<2.14
BUNDLE ?= m3ae
JOBS ?= 2

.PHONY: train test lint clean

train: $(VENV)/.installed
	$(VENV)/bin/python -m monai.bundle run --config_file bundles/$(BUNDLE)/configs/train.json

# One test process per core, each with one thread: files are shared out, so that fixtures of a file are made once.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

# Stamps: an installation is repeated only when pyproject.toml has changed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install "$(TORCH)" -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install "$(TORCH)" -e ".[test]"
	touch $@

# `make train` and `make test` work on a fresh clone. They share one virtual environment, made on first use.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch>=2.6,<2.14
BUNDLE ?= m3ae

.PHONY: train test lint clean

train: $(VENV)/.installed
	$(VENV)/bin/python -m monai.bundle run --config_file bundles/$(BUNDLE)/configs/train.json

test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest

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

# gan-runner: `make` alone says what there is.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help
.PHONY: help install demo test test-gpu check format clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(BIN)/.installed ## make .venv with gan-runner and its tools in it

$(BIN)/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar on --editable '.[dev]'
	@touch $@

demo: install ## train a WGAN-GP on 25 Gaussians: about a minute, nothing to download
	$(BIN)/gan-train +experiment=gaussians25

test: install ## the fast tests
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-gpu: install ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

check: install ## format, lint, types and every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not gpu"

format: install ## bring the source into the project's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was built; outputs/ and data/ stay
	rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# gan-runner: `make` alone says what there is.
PYTHON ?= python3
BIN := .venv/bin
PACKAGE := $(BIN)/.installed
TESTS := $(BIN)/.installed-test
ALL := $(BIN)/.installed-all
.DEFAULT_GOAL := help
.PHONY: help demo test install install-all test-gpu check format clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(PACKAGE) ## train a WGAN-GP on 25 Gaussians: about a minute, nothing to download
	$(BIN)/gan-train +experiment=gaussians25

test: $(TESTS) ## the fast tests; those of optional packages are skipped where a package is missing
	$(BIN)/python -m pytest -m "not slow and not gpu"

install: $(PACKAGE) ## make .venv with gan-runner in it
install-all: $(ALL) ## the same with all optional packages and the tools of `make check`

test-gpu: $(TESTS) ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

check: $(ALL) ## format, lint, types and every test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not gpu"

format: $(ALL) ## bring the source into the project's form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was built; outputs/ and data/ stay
	rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# Each level has what the one before it has.
$(PACKAGE): WHAT := .
$(TESTS): WHAT := .[test]
$(ALL): WHAT := .[dev]
$(PACKAGE): HAS := $(PACKAGE)
$(TESTS): HAS := $(PACKAGE) $(TESTS)
$(ALL): HAS := $(PACKAGE) $(TESTS) $(ALL)

$(PACKAGE) $(TESTS) $(ALL): pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --progress-bar on --editable '$(WHAT)'
	@touch $(HAS)

$(BIN)/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

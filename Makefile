# make demo and make test need python3 (3.11 or later), make and git; everything else goes into this folder.
PYTHON ?= python3
ENGINE ?= docker
VENV := .venv
BIN := $(VENV)/bin
VERSION = $(shell sed -n 's/^__version__.*"\(.*\)"/\1/p' consumer/__init__.py)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean lock alerts-test image image-test manifests

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs Python 3.11 or later: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/base: $(VENV)/made requirements/base.txt
	@echo "installing what the program needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/base.txt
	@touch $@

$(VENV)/test: $(VENV)/base requirements/test.txt pyproject.toml
	@echo "installing what the tests need into $(VENV), a minute or two ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/base ## See the whole thing work: embedded queue and database, sample events
	@$(BIN)/python -m consumer demo

lint: $(VENV)/test ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## Check everything: style, types, and the tests with their servers
	$(BIN)/python -m pytest -n 6 --dist worksteal

format: $(VENV)/test ## Put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

alerts-test: ## Check the alert rules and run their tests (promtool, or apt-get to fetch it)
	sh deploy/prometheus/alerts-test.sh

image: ## Build the consumer's image (ENGINE=podman for another engine than docker)
	$(ENGINE) build --file deploy/Dockerfile --tag health-event-consumer:$(VERSION) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse HEAD) .

image-test: ## Build the image without an engine and try it out (root, buildah, debootstrap, crun)
	bash deploy/image-test.sh

manifests: $(VENV)/test ## Make the plain manifests from the Helm chart, and the chart's schema from the settings
	$(BIN)/python deploy/manifests.py

bench: $(VENV)/test ## Measure: prints ratios, takes some minutes
	$(BIN)/python -m benchmarks

lock: ## Resolve the dependencies anew (needs uv)
	sh requirements/compile.sh

clean: ## Remove what make made
	rm -rf $(VENV) .tools .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

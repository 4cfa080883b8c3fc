# Every target prepares what it needs. Logic lives in scripts/prepare.py, in `rootstock` and in dvc.yaml, not here.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help repro test check lint configure deps ui docs tidy lock prepare

# the choice in conf/; SET takes more, in Hydra's grammar: SET="finetune.full.training.epochs=10"
DATA ?=
RECIPE ?=
ARCH ?=
SET ?=
CHOICE = $(strip $(if $(DATA),data=$(DATA)) $(if $(RECIPE),recipe=$(RECIPE)) $(if $(ARCH),arch=$(ARCH)) $(SET))
PORT ?= 5000
# which Python makes .venv: what .venv was made with, else python3
PYTHON ?= $(shell test -x .venv/bin/python && echo .venv/bin/python || echo python3)

OUTER_PATH := $(PATH)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export NO_ALBUMENTATIONS_UPDATE := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
export OMP_WAIT_POLICY ?= PASSIVE
unexport PYTHONPATH PYTHONHOME

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

repro: configure ## raw images to a judged classifier; DATA=…, RECIPE=…, ARCH=… choose in conf/
	@rootstock recheck
	@dvc repro
	@rootstock summary

test: prepare ## all tests; no network needed
	@python -m pytest

check: lint ## lint, and the quick tests: configuration, contracts, pipeline, documents
	@python -m pytest tests/config tests/schema tests/pipeline tests/test_*.py

lint: prepare ## formatting and lint
	@ruff format --check .
	@ruff check .

configure: prepare ## compose conf/ into params.yaml; DATA=…, RECIPE=…, ARCH=…, SET="key=value …"
	@rootstock configure $(CHOICE)

deps: prepare ## write each stage's modules into dvc.yaml
	@rootstock deps

ui: prepare ## open MLflow on this project's runs; PORT=5000
	@rootstock ui --port $(PORT)

docs: prepare ## write the measured tables into README and docs, from docs/results
	@rootstock docs

tidy: prepare ## remove what replicas left that params.yaml no longer names
	@rootstock tidy

lock: ## pin the dependencies of pyproject.toml anew (needs uv)
	@command -v uv >/dev/null || { echo "error: make lock needs uv (https://docs.astral.sh/uv)" >&2; exit 1; }
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--group dev pyproject.toml --output-file requirements.lock

prepare: # .venv from requirements.lock; a second call installs nothing
	@PATH="$(OUTER_PATH)" && command -v $(PYTHON) >/dev/null || { \
		echo "error: $(PYTHON) is not installed; Rootstock needs Python 3.11, 3.12 or 3.13" >&2; exit 1; }
	@PATH="$(OUTER_PATH)" $(PYTHON) -I scripts/prepare.py

# Every target prepares what it needs. Logic lives in scripts/prepare.py, in `rootstock` and in dvc.yaml, not here.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help repro retrain test check lint configure deps ui docs tidy lock bench bench-peers faults fuzz prepare

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
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

repro: configure ## raw images to a judged classifier; DATA=…, RECIPE=…, ARCH=… choose in conf/
	@rootstock mend
	@rootstock recheck
	@dvc repro
	@rootstock summary
	@rootstock promote

retrain: prepare ## where data, code or parameters changed: retrain, judge, push data and a branch to merge
	@rootstock retrain

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

faults: prepare ## kill the pipeline at drawn instants, run experiments at once; about an hour
	@folder=$$(mktemp -d) && PYTHONPATH=tests:benchmarks python -m faults --folder "$$folder"

lock: ## pin the dependencies of pyproject.toml anew (needs uv)
	@command -v uv >/dev/null || { echo "error: make lock needs uv (https://docs.astral.sh/uv)" >&2; exit 1; }
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--group dev pyproject.toml --output-file requirements.lock

bench: bench-peers ## measure loader, statistics and sharding beside their peers; some 20 minutes, idle machine
	@failed=0; for name in loader stats shards; do python benchmarks/$$name.py || failed=1; done; exit $$failed

bench-peers: prepare ## install the benchmarks' peers, each into its own environment under .bench
	@python benchmarks/install_peers.py

fuzz: prepare ## faults in shards, kills of sharding, hostile inputs, ten minutes of fuzzing; some 15 minutes
	@failed=0; for part in "shard_faults --number 1000" "shard_kills --number 50" hostile_inputs "fuzzing --minutes 10"; do \
		PYTHONPATH=tests:benchmarks python -m faults.$$part || failed=1; done; exit $$failed

prepare: # .venv from requirements.lock; a second call installs nothing
	@PATH="$(OUTER_PATH)" && command -v $(PYTHON) >/dev/null || { \
		echo "error: $(PYTHON) is not installed; Rootstock needs Python 3.11, 3.12 or 3.13" >&2; exit 1; }
	@PATH="$(OUTER_PATH)" $(PYTHON) -I scripts/prepare.py

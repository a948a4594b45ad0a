# The commands of the project. `make demo` and `make test` need nothing but Python 3.11-3.13.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test test-full check bench fuzz docs docs-links results clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/.demo: setup.py .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

.venv/.dev: setup.py .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

.venv/.docs: setup.py .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

.venv-peer/.ready:
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install --quiet 'torch==2.13.0' pythae==0.1.2
	@touch $@

demo: .venv/.demo  ## Train on 5,000 real digits, evaluate, draw pictures (some minutes)
	$(BIN)/tfvamp train --dataset mnist5k --prior vamp --components 200 --epochs 100 --warmup 30 --run-dir runs/demo --overwrite
	$(BIN)/tfvamp evaluate runs/demo --samples 500
	$(BIN)/tfvamp sample runs/demo -n 64 --seed 7 --output runs/demo/samples.png
	$(BIN)/tfvamp plot runs/demo
	@echo "Look at the pictures in runs/demo/figures"

test: .venv/.dev  ## Run the tests, except those marked full
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup --durations 10 -m "not full"

test-full: .venv/.dev  ## Run all tests, every combination of models and priors included
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup --durations 30

check: .venv/.dev  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.dev .venv-peer/.ready  ## Time against pythae and bare matrix products (alone on the machine)
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/epoch.py
	$(BIN)/python benchmarks/strategies.py
	$(BIN)/python benchmarks/priors.py
	$(BIN)/python benchmarks/log_likelihood.py
	$(BIN)/python benchmarks/gradients.py
	$(BIN)/python benchmarks/pixel_sampling.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/cost.py

fuzz: .venv/.dev  ## Damage source files and read them; RAW_DIR=folder for the published ones
	$(BIN)/python -m tests.fuzz $(if $(RAW_DIR),--raw-dir $(RAW_DIR))

docs: .venv/.docs  ## Build the pages of docs/ into site/
	$(BIN)/python -m sphinx --quiet -W --keep-going docs site
	@echo "Open site/index.html"

docs-links: .venv/.docs  ## Follow every link of the pages to other sites (needs a network)
	$(BIN)/python -m sphinx --quiet -b linkcheck docs site/links

REPRODUCE := $(BIN)/tfvamp reproduce table1 --details --archive docs/results --run-root runs/results --output docs/results.md
results: .venv/.dev  ## Train and evaluate the runs of docs/results.md, those that are missing (some six hours)
	$(REPRODUCE) --section "table vae" --datasets caltech101 --models vae --priors standard,mog,vamp-data,vamp-weighted,vamp
	$(REPRODUCE) --section "table hvae" --datasets caltech101 --models hvae
	$(REPRODUCE) --section "table frey-vae" --datasets frey_faces --models vae
	$(REPRODUCE) --section "table frey-hvae" --datasets frey_faces --models hvae
	$(REPRODUCE) --section "table mnist-vae" --datasets static_mnist --models vae

clean:  ## Remove environments and caches
	rm -rf .venv .venv-peer site build *.egg-info .pytest_cache .mypy_cache .ruff_cache

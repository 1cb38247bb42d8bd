# Each target makes the virtual environment itself when it is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-all check bench docs gpu clean

demo: $(READY) ## the main job in one command, on any machine
	$(BIN)/monotreme run recipes/pocket.yaml
	$(BIN)/python -m monotreme.pocket.planted runs/pocket

test: $(READY) ## what every change must pass
	$(BIN)/pytest -n auto -m "not slow and not gpu"

test-all: $(READY) ## and what takes longer
	$(BIN)/pytest -n auto -m "not gpu"

check: $(READY) ## style, types, layers, spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src tests docs bench *.md

bench: $(READY) ## ours against the peers, a script a claim
	for script in bench/*.py; do $(BIN)/python $$script || exit 1; done

docs: $(READY) ## the pages that are made from the code, and the site with all of them
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --clean --strict
	@echo "open site/index.html"

gpu: $(READY) ## tests and figures that need a CUDA device
	$(BIN)/pytest -m gpu
	$(BIN)/python bench/train_gpu.py
	$(BIN)/python bench/evaluate_gpu.py

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf .venv runs site

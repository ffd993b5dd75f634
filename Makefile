# make demo    distil a small en-de student from scratch on this machine
# make test    lint, types and tests
# make lint    lint and types only
# make bench   benchmarks against named peers, LIMBECK_DATA=folder of corpora

PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv demo test test-slow lint bench clean

venv: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 venv"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH_INDEX) torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: venv
	$(BIN)/limbeck train configs/demo-en-de.yml --yes

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: venv
	$(BIN)/python -m pytest -m slow

bench: venv
	@test -n "$(LIMBECK_DATA)" || { echo "make bench LIMBECK_DATA=folder (en-de/train.{en,de}.zst, en-de/noisy.{en,de}.zst)"; exit 1; }
	@for file in benchmarks/*.py; do echo "== $$file"; LIMBECK_DATA="$(LIMBECK_DATA)" $(BIN)/python $$file || exit 1; done

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache

# make demo    distil a small en-de student from scratch on this machine
# make test    lint, types and tests
# make lint    lint and types only
# make bench   benchmarks against named peers, LIMBECK_DATA=folder of corpora
# make bench-peers   the peers that training is compared with, in .venv-peers; make bench finds them there
# Hours long, and so by themselves: benchmarks/multi30k.py and benchmarks/distillation.py

PYTHON ?= python3
BIN := .venv/bin

.PHONY: venv demo test test-slow lint bench bench-peers clean

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
	$(BIN)/python -m pytest -m "not slow" --numprocesses logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder

test-slow: venv
	$(BIN)/python -m pytest -m slow

# Named by who has other ones: export LIMBECK_PEERS and LIMBECK_PYMARIAN.
export LIMBECK_PEERS ?= $(wildcard .venv-peers/bin/python)
export LIMBECK_PYMARIAN ?= $(wildcard .venv-peers/bin/pymarian)

bench: venv
	@test -n "$(LIMBECK_DATA)" || { echo "make bench LIMBECK_DATA=folder (en-de/train.{en,de}.zst, en-de/noisy.{en,de}.zst)"; exit 1; }
	@for file in $(filter-out benchmarks/multi30k.py benchmarks/distillation.py,$(wildcard benchmarks/*.py)); do echo "== $$file"; LIMBECK_DATA="$(LIMBECK_DATA)" $(BIN)/python $$file || exit 1; done

bench-peers: .venv-peers/installed

# pymarian's wheel is 600 MB and made for some Pythons only: without it the rest is still compared.
.venv-peers/installed: benchmarks/peers.txt
	@$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet $(TORCH_INDEX) torch==2.13.0
	.venv-peers/bin/python -m pip install --quiet --requirement benchmarks/peers.txt
	.venv-peers/bin/python -m pip install --quiet --no-deps joeynmt==2.3.0
	.venv-peers/bin/python -m pip install --quiet pymarian==1.12.42 || echo "pymarian cannot be installed here: Marian is left out"
	@touch $@

clean:
	rm -rf .venv .venv-peers build *.egg-info .mypy_cache .ruff_cache .pytest_cache

# make demo   sets up .venv once, trains vanilla_gan in four paradigms, proves them equal, prints the report's path
# make test   the tests           make lint   ruff and mypy
# make test-docs   runs every block of docs/your-own-model.md, rnns.md, old-frameworks.md, records.md and your-checkpoint.md
# make test-torch  the tests that hold the ports against PyTorch itself, in an environment of their own
# make prove  the long proofs, resumable; writes their tables into docs/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
STAMP := $(VENV)/.installed
TORCH_VENV := .venv-torch
TORCH_STAMP := $(TORCH_VENV)/.installed
TORCH := torch==2.13.0

export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-docs test-torch lint format prove clean install

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Python 3.11 to 3.13 is needed, and $(PYTHON) is %d.%d; give another: make PYTHON=python3.12" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the packages of constraints.txt into $(VENV) (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m tfport.demo --folder=$(DEMO)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist=loadscope

# PyTorch first and by itself, so that nothing else chooses its build; TORCH='torch==... --index-url=...' takes another.
$(TORCH_STAMP): pyproject.toml constraints.txt
	@test -x $(TORCH_VENV)/bin/python || $(PYTHON) -m venv $(TORCH_VENV)
	@echo "Installing PyTorch and the packages of constraints.txt into $(TORCH_VENV) (a few minutes, once)"
	@$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

test-torch: $(TORCH_STAMP)
	@$(TORCH_VENV)/bin/python -c 'import torch'
	$(TORCH_VENV)/bin/python -m pytest -m "not slow" tests/tfport/peers tests/tfport/adapters/test_torch_program.py tests/tfport/adapters/test_torch_layouts.py tests/tfport/checkpoints/test_*torch*.py

test-docs: $(STAMP)
	$(BIN)/python -m pytest tests/docs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

prove: $(STAMP)
	PYTHONPATH=.:shared $(BIN)/python tests/prove.py
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf $(VENV) $(TORCH_VENV) runs build *.egg-info shared/*.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

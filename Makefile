# make demo: the main job on a real video, a video classified, demo.html.   make lint: ruff and pyright.
# make test: all tests, in under twenty minutes on two cores.   make test-fast: those marked `fast`, in under three: the
# reference, published fixtures, equivalence, one test of every command.
# Each sets up .venv, or what VENV names, with PYTHON.
# make train: the four models from scratch on a small task, some fifteen minutes on two cores.
# make peers: PyTorch, transformers and timm as well; the tests that compare with them run where they are.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_VIDEO := vivit/demo/clockwise-3_digit-6.mkv

.PHONY: demo test test-fast train lint peers clean

demo: $(VENV)/.demo
	$(BIN)/vivit audit
	$(BIN)/vivit classify $(DEMO_VIDEO)
	$(BIN)/vivit explain $(DEMO_VIDEO) -o demo.html

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m fast

train: $(VENV)/.train $(VENV)/.plot
	$(BIN)/vivit train --recipe carousel --folder carousel

lint: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# one stamp an extra: $(VENV)/.demo installs [demo]; a changed pyproject.toml installs again
$(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

# timm by its dependencies would bring a torchvision that replaces the CPU's torch; a ViT needs none of them
peers: $(VENV)/.test $(VENV)/.peers
	$(BIN)/python -m pip install --quiet --no-deps 'timm==1.0.31'

clean:
	rm -rf $(VENV) build dist *.egg-info

# make demo: the main job on a real video, a video classified, demo.html.   make lint: ruff and pyright.
# make test: the tests, in some twenty minutes on two cores.   make test-fast: those marked `fast`, in some three: the
# reference, published fixtures, equivalence, one test of every command.
# make test-thorough: more of the same, in some ten minutes: other models, dtypes, chips and pages, and every property of
# the conformance kit, of XLA and of the kernels.
# Each sets up .venv, or what VENV names, with PYTHON.
# make train: the four models from scratch on a small task, some fifteen minutes on two cores.
# make docs: the site, in docs/_build/html, with every code cell run; in under four minutes on two cores, offline.
# make picture: docs/images/explain.png anew, with Chromium (.ci/chromium installs it).
# make peers: PyTorch, transformers, timm, vit-pytorch and ONNX as well; the tests that compare with them run where they are.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_VIDEO := vivit/demo/zoom-in.mp4

.PHONY: demo test test-fast test-thorough train lint docs picture peers clean

demo: $(BIN)/vivit
	$(BIN)/vivit audit
	$(BIN)/vivit classify $(DEMO_VIDEO)
	$(BIN)/vivit explain $(DEMO_VIDEO) -o demo.html

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not thorough"

test-thorough: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist load -m thorough

test-fast: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile -m fast

train: $(VENV)/.train $(VENV)/.plot
	$(BIN)/vivit train --recipe carousel --folder carousel

lint: $(VENV)/.test $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.docs
	JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 $(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going \
		--conf-dir docs --doctree-dir docs/_build/doctrees . docs/_build/html
	@echo "wrote docs/_build/html/index.html"

picture: $(VENV)/.test
	$(BIN)/python tests/picture.py $(DEMO_VIDEO)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(BIN)/vivit: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# one stamp an extra: $(VENV)/.train installs [train]; a changed pyproject.toml installs again
$(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

# timm and vit-pytorch by their dependencies would bring a torchvision that replaces the CPU's torch; a ViT needs none
# jax2onnx would bring an older orbax-checkpoint than [train] has; converting a model needs none
peers: $(VENV)/.test $(VENV)/.peers
	$(BIN)/python -m pip install --quiet --no-deps 'timm==1.0.31' 'vit-pytorch==1.26.11' 'jax2onnx==0.17.1' 'flax==0.12.8'
	$(BIN)/python -m pip install --quiet 'onnx>=1.20' 'onnx-ir>=0.2.1' 'treescope>=0.1.7'

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info

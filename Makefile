# make demo: the main job on a real video, a video classified, demo.html.   make test: all tests.   make lint: ruff and pyright.
# Each sets up .venv.
# make train: the four models from scratch on a small task, some fifteen minutes on two cores.
# make peers: PyTorch, transformers and timm as well; the tests that compare with them run where they are.
PYTHON ?= python3
BIN := .venv/bin
DEMO_VIDEO := vivit/demo/clockwise-3_digit-6.mkv

.PHONY: demo test train lint peers clean

demo: .venv/.demo
	$(BIN)/vivit audit
	$(BIN)/vivit classify $(DEMO_VIDEO)
	$(BIN)/vivit explain $(DEMO_VIDEO) -o demo.html

test: .venv/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

train: .venv/.train .venv/.plot
	$(BIN)/vivit train --recipe carousel --folder carousel

lint: .venv/.test .venv/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

# one stamp an extra: .venv/.demo installs [demo]; a changed pyproject.toml installs again
.venv/.%: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	touch $@

# timm by its dependencies would bring a torchvision that replaces the CPU's torch; a ViT needs none of them
peers: .venv/.test .venv/.peers
	$(BIN)/python -m pip install --quiet --no-deps 'timm==1.0.31'

clean:
	rm -rf .venv build dist *.egg-info

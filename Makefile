# Everything a developer or a curious visitor needs. Each target installs what it uses.
PYTHON ?= python3
VENV ?= .venv
# What is installed: the tree itself, or a built wheel (CI tests the wheel).
PACKAGE ?= -e .
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The versions that were tried together on this Python, so that tomorrow's release breaks nobody's first
# minute; a Python without such a file gets the newest that pyproject.toml allows.
CONSTRAIN = $(addprefix --constraint ,$(wildcard constraints/python$(shell \
	$(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt))
PYTHONS = 3.11 3.12 3.13
# Most tests use one core and some wait: three files at a time fill two. A file's tests share what they have
# made. A process that dies ends the run with a failure (xdist waits for ever for one that it replaces), and
# so does a test that hangs, with the stacks of all its threads.
WORKERS = 3
SIDE_BY_SIDE = -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 \
	-o faulthandler_timeout=300 -o faulthandler_exit_on_timeout=true

# A machine without a desktop lacks what OpenCV's windows need; the headless build does all but windows.
ensure_opencv = $(BIN)/python -c 'import cv2' 2>/dev/null || { \
	echo "opencv-python lacks system libraries here: taking opencv-python-headless"; \
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python \
	&& $(PIP) $(CONSTRAIN) opencv-python-headless; }
# The package with an extra: `-e .[dev]`, or `dist/velatura-X.whl[dev]`.
with_extra = $(patsubst %.,'%.[$(1)]',$(patsubst %.whl,'%.whl[$(1)]',$(PACKAGE)))

.PHONY: demo test test-environment soak quick runtime lint format bench docs wheel zoo constraints clean help

help:
	@echo "make demo    restyle and upscale the sample clip (installs the runtime only)"
	@echo "make test    install what the tests need and run them (about ten minutes on two cores)"
	@echo "make quick   the same without the slow ones"
	@echo "make runtime the quick tests of the runtime, which need no PyTorch"
	@echo "make soak    the long tests, which make test leaves out: CI runs them, too"
	@echo "make lint    ruff and pyright"
	@echo "make bench   measure, writing benchmarks/results"
	@echo "make constraints  renew the versions in constraints/ from pyproject.toml"
	@echo "make docs    build these documents, with the references, into site/"
	@echo "make zoo     train the models that are shipped, one after another: days; goes on where it stopped"
	@echo "make clean   remove what the other targets made"

demo: $(VENV)/.runtime
	$(BIN)/python samples/demo.py

# Training runs in a process of its own, as it does for a user: in one with the inference libraries, which
# keep threads of their own, a whole run of the tests once ended in a segmentation fault.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not soak" --ignore=tests/training $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest -m "not soak" tests/training $(SIDE_BY_SIDE)

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak --ignore=tests/training
	$(BIN)/python -m pytest -m soak tests/training

test-environment: $(VENV)/.dev

quick: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow and not soak" --ignore=tests/training $(SIDE_BY_SIDE)
	$(BIN)/python -m pytest -m "not slow and not soak" tests/training $(SIDE_BY_SIDE)

runtime: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow and not soak" tests/runtime $(SIDE_BY_SIDE)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# The commands' reference is made from the commands themselves, training's included.
docs: $(VENV)/.dev
	$(PIP) $(CONSTRAIN) $(call with_extra,docs)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# In this order: the other styles begin with the first one's weights. Every run goes on from its last
# checkpoint, whatever stopped it, and one that is finished costs a few seconds.
ZOO = starry-night wave gauguin the-scream udnie monet composition-vii \
	upscale-2x-video upscale-4x-video restore-1x upscale-2x-sharp upscale-4x-sharp upscale-2x-hq johnson-half

zoo: $(VENV)/.dev
	for recipe in $(ZOO); do \
		nice -n 19 $(BIN)/velatura train $$recipe -o runs/zoo/$$recipe --threads 1 || exit 1; \
	done

wheel: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "velatura needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' \
		|| { echo "Python's venv module is missing: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml
	$(PIP) $(CONSTRAIN) $(PACKAGE)
	@$(ensure_opencv)
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(PIP) $(CONSTRAIN) $(call with_extra,test)
	@$(ensure_opencv)
	touch $@ $(VENV)/.runtime

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(PIP) $(CONSTRAIN) $(call with_extra,dev)
	@$(ensure_opencv)
	touch $@ $(VENV)/.test $(VENV)/.runtime

# All extras but [gpu]: its TensorRT is built from what only its vendor's index has.
constraints: $(VENV)/bin/python
	$(PIP) uv
	for version in $(PYTHONS); do echo opencv-python-headless | $(BIN)/uv pip compile --quiet --upgrade \
		--universal --python-version $$version --no-annotate --no-header --no-emit-index-url \
		$(foreach extra,dev docs export game import live ort rtx train vapoursynth,--extra $(extra)) \
		pyproject.toml - --output-file constraints/python$$version.txt || exit; done

clean:
	rm -rf $(VENV) .ci/tools demo dist build site *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

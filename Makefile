# `make serve` and `make test` do all the set-up; everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# An NVIDIA driver decides which of the two ONNX Runtimes is installed: both have one import name, so only one may be.
HAS_CUDA := $(and $(shell command -v nvidia-smi 2>/dev/null),$(filter x86_64,$(shell uname -m)))
RUNTIME := $(if $(HAS_CUDA),cuda,cpu)
OTHER_PACKAGE := $(if $(HAS_CUDA),onnxruntime,onnxruntime-gpu)
OTHER_RUNTIME := $(if $(HAS_CUDA),cpu,cuda)
ONE_RUNTIME = $(PIP) uninstall --yes $(OTHER_PACKAGE) 2>/dev/null; rm -f $(VENV)/.*-$(OTHER_RUNTIME)

.PHONY: serve test check format export-tools random-model tiny-model clean

serve: $(VENV)/.serve-$(RUNTIME)
	$(BIN)/qwen3-tts serve

# The tests of the pages want Chromium, which no package of Python or Node brings along.
test: $(VENV)/.dev-$(RUNTIME) tests/node/node_modules
	$(BIN)/python -m tests.web.chromium
	$(BIN)/python -m pytest

check: $(VENV)/.dev-$(RUNTIME)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev-$(RUNTIME)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What export/convert.py needs, torch among it.
export-tools: $(VENV)/.export-$(RUNTIME)

# The bundle that makes noise: rebuilt from a tiny random checkpoint by the export pipeline.
random-model: $(VENV)/.dev-$(RUNTIME)
	$(BIN)/python -m tests.checkpoints tiny .cache/random
	$(BIN)/python export/convert.py --model .cache/random --output tests/models/qwen3_tts_random --precision fp32 --noise --force

# The embedded model: its checkpoint converted again; how that was trained is in models/qwen3_tts_tiny/recipe.
tiny-model: $(VENV)/.dev-$(RUNTIME)
	$(BIN)/python export/convert.py --model models/qwen3_tts_tiny/checkpoint --output models/qwen3_tts_tiny --precision int8 --force

$(VENV)/.made:
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		'Python 3.11 or newer is needed: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --upgrade pip
	touch $@

$(VENV)/.serve-$(RUNTIME): $(VENV)/.made pyproject.toml
	$(ONE_RUNTIME)
	$(PIP) install -e '.[$(RUNTIME)]'
	touch $@

$(VENV)/.export-$(RUNTIME): $(VENV)/.made pyproject.toml
	$(ONE_RUNTIME)
	$(PIP) install torch==2.13.0
	$(PIP) install -e '.[$(RUNTIME),export]'
	touch $@

# The official package is the tests' oracle; what it pins and what it needs for its 25 Hz tokenizer stays away.
$(VENV)/.dev-$(RUNTIME): $(VENV)/.export-$(RUNTIME)
	$(PIP) install -e '.[$(RUNTIME),export,dev]'
	$(PIP) install --no-deps qwen-tts==0.1.1 dashscope==2.0.2 faster-whisper==1.2.1 hibari-tts==0.2.1
	touch $@

tests/node/node_modules: tests/node/package-lock.json
	cd tests/node && npm ci --silent --no-audit --no-fund
	touch $@

clean:
	rm -rf $(VENV) .cache tests/node/node_modules

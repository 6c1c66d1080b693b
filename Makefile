# `make serve` and `make test` do all the set-up; everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# An NVIDIA driver decides which of the two ONNX Runtimes is installed; only one may be.
RUNTIME := $(if $(shell command -v nvidia-smi 2>/dev/null),cuda,cpu)

.PHONY: serve test check format random-model clean

serve: $(VENV)/.serve-$(RUNTIME)
	$(BIN)/qwen3-tts serve

test: $(VENV)/.dev tests/node/node_modules
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The bundle that makes noise: rebuilt from a tiny random checkpoint by the export pipeline.
random-model: $(VENV)/.dev
	$(BIN)/python -m tests.checkpoints tiny .cache/random
	$(BIN)/python export/convert.py --model .cache/random --output models/qwen3_tts_random --precision fp32 --force \
		--description "Random weights: it makes noise, not speech. For trying the server and for its tests."

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.serve-$(RUNTIME): $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[$(RUNTIME)]'
	touch $@

# The official package is the tests' oracle; what it pins and what it needs for its 25 Hz tokenizer stays away.
$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -e '.[$(RUNTIME),export,dev]'
	$(BIN)/python -m pip install --quiet --no-deps qwen-tts==0.1.1 dashscope==2.0.2
	touch $@

tests/node/node_modules: tests/node/package-lock.json
	cd tests/node && npm ci --silent --no-audit --no-fund
	touch $@

clean:
	rm -rf $(VENV) .cache tests/node/node_modules

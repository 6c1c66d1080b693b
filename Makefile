# `make serve` and `make test` do all the set-up; everything lives in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Versions that are known to work together; `make lock` refreshes them.
LOCKED := --constraint constraints.txt
EXPORT_TESTS := tests/export/
PARITY_TESTS := tests/parity/
SERVER_TESTS := tests/server/
ENGINE_TESTS := tests/server/engine/ tests/server/graphs/
SOCKET_TESTS := tests/server/http/ tests/server/wyoming/
WEB_TESTS := tests/web/
CLIENT_TESTS := tests/clients/
RAY_TESTS := tests/ray/
OTHER_TESTS := $(filter-out $(EXPORT_TESTS) $(PARITY_TESTS) $(SERVER_TESTS) $(SOCKET_TESTS) $(WEB_TESTS) $(CLIENT_TESTS) $(RAY_TESTS),$(dir $(wildcard tests/*/__init__.py)) $(wildcard tests/test_*.py))
# An NVIDIA driver decides which of the two ONNX Runtimes is installed: both have one import name, so only one may be.
HAS_CUDA := $(and $(shell command -v nvidia-smi 2>/dev/null),$(filter x86_64,$(shell uname -m)))
RUNTIME := $(if $(HAS_CUDA),cuda,cpu)
OTHER_PACKAGE := $(if $(HAS_CUDA),onnxruntime,onnxruntime-gpu)
OTHER_RUNTIME := $(if $(HAS_CUDA),cpu,cuda)
# PyPI's torch for Linux brings CUDA along, which takes gigabytes; torch's own index has builds without it, whose
# version counts as newer. Where that index cannot be reached, pip goes on with what else it finds.
CPU_TORCH := $(if $(HAS_CUDA),,--extra-index-url https://download.pytorch.org/whl/cpu --retries 1 --timeout 30)
TORCH = $(PIP) install $(CPU_TORCH) torch==2.13.0
ONE_RUNTIME = $(PIP) uninstall --yes $(OTHER_PACKAGE) 2>/dev/null; rm -f $(VENV)/.*-$(OTHER_RUNTIME)

.PHONY: serve test test-export test-parity test-others test-engine test-server test-sockets test-web test-python test-without-torch test-clients test-ray peers check check-deploy docs format lock tools python-tools test-tools export-tools random-model tiny-model clean

serve: $(VENV)/.serve-$(RUNTIME)
	$(BIN)/qwen3-tts serve

# How many parts of the tests run at once: all seven on two cores, so that each ends when the others do and no core is idle
# at the end, but three on one core, where more would only be slower. `nproc` counts the cores that this process may use,
# and macOS has none.
CORES := $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
TEST_JOBS := $(shell expr 4 '*' $(CORES) - 1)

# The tests of the pages want Chromium, which no package of Python or Node brings along. The parts that take longest come
# first, and one that fails keeps no other from being run.
test: tools
	$(BIN)/python -m tests.web.chromium
	$(MAKE) --keep-going --jobs=$(TEST_JOBS) $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) test-web test-parity test-export test-engine test-sockets test-server test-others

# The exporter, by small conversions.
test-export: tools
	$(BIN)/python -m pytest $(EXPORT_TESTS)

# Parity with the official package.
test-parity: tools
	$(BIN)/python -m pytest $(PARITY_TESTS)

# Benchmarks, and what belongs to no other part.
test-others: tools
	$(BIN)/python -m pytest $(OTHER_TESTS)

# The other rooms of the server, and the command line.
test-server: tools
	$(BIN)/python -m pytest $(SERVER_TESTS) $(addprefix --ignore=,$(SOCKET_TESTS) $(ENGINE_TESTS))

# What computes speech.
test-engine: tools
	$(BIN)/python -m pytest $(ENGINE_TESTS)

# Both protocols, over sockets.
test-sockets: tools
	$(BIN)/python -m pytest $(SOCKET_TESTS)

# The pages, in a browser.
test-web: tools
	$(BIN)/python -m pytest $(WEB_TESTS)

# The tests of the server that meet Python's own library: sockets, event loops, threads, processes, signals, files,
# arguments; and the libraries of compressed audio, of which newer Pythons have other versions. Engine, graphs, speech, text
# and voices compute the same on every Python, and the others speak through them. Of HTTP these are how the server starts and
# stops, how connections are made, kept, cut and ended, who gets in, and what is sent over WebSockets; not what may be asked
# for and what is answered, to which clients and to pages of which origins, which our own code decides, nor callers that a
# generator invents, nor dozens of callers of the real engine, whose rows compute what they compute on the oldest: those who
# hang, leave and stop it meet the fake one. Nor what is measured and counted, which is our own code too, nor imitations of
# other systems, nor comparisons with other projects' packages.
# For another Python: make test-python PYTHON=python3.14 VENV=.cache/venv3.14
SAME_ON_EACH_PYTHON := audio/test_official_reading.py bench engine graphs speech text voices test_metrics.py \
	test_platforms.py test_speaks.py $(patsubst %,http/test_%.py,as_others_ask clients cors encoding examples fuzz http \
	long_texts openapi other_clients pages speech_batch swagger timestamps under_load voices)

test-python: python-tools
	$(BIN)/python -m pytest --without-torch $(SERVER_TESTS) $(addprefix --ignore=$(SERVER_TESTS),$(SAME_ON_EACH_PYTHON))

# The tests of all that needs no torch, for a Python that has none, in an environment of its own:
# make test-without-torch PYTHON=python3.14 VENV=.cache/venv3.14
test-without-torch: $(VENV)/.test-$(RUNTIME) tests/node/node_modules
	$(BIN)/python -m tests.web.chromium
	$(BIN)/python -m pytest --without-torch

check: $(VENV)/.dev-$(RUNTIME)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Image, compose, Kubernetes, nginx, systemd and workflows, against the schemas and linters of those who read them.
check-deploy:
	PYTHON=$(PYTHON) deploy/check.sh

# The pages as a static site in .cache/site, with every link checked.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# Real clients, each in an environment of its own under .cache/clients: 2.7 gigabytes, so that `test` is without
# them. Their versions are in tests/clients/packages.toml. Those that clone voices speak with a small Base model, which is
# converted here.
test-clients: tools
	$(BIN)/python -m pytest $(CLIENT_TESTS)

# Ray, in an environment of its own: a gigabyte, so that `test` is without it. It has wheels for Python up to 3.13.
test-ray: $(VENV)/.test-$(RUNTIME) .cache/ray-venv/.made
	tests/ray/alone $(BIN)/python -m pytest $(RAY_TESTS)

# Other projects' wheels, for `python -m benchmarks.peers`, each in an environment of its own.
PEERS := vox-tts==0.19.5 realtimetts-qwen-native-cpu==0.4.2 qwen3-tts-mnn==0.3.1

peers: $(foreach peer,$(PEERS),.cache/peers/$(subst ==,/.,$(peer)))

.cache/peers/%:
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check --quiet install $(subst /.,==,$*)
	touch $@

.cache/ray-venv/.made: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .cache/ray-venv
	.cache/ray-venv/bin/python -m pip --disable-pip-version-check --quiet install $(LOCKED) -e '.[cpu,formats,ray]'
	touch $@

# The newest versions that pyproject.toml allows, for every Python and platform at once.
lock: $(VENV)/.made
	$(PIP) install uv==0.13.9
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --no-annotate \
		--custom-compile-command "make lock" --output-file constraints.txt

format: $(VENV)/.dev-$(RUNTIME)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# All that `test` and `check` install.
tools: $(VENV)/.dev-$(RUNTIME) tests/node/node_modules

# What `test-python` installs.
python-tools: $(VENV)/.python-$(RUNTIME)

# All that `test-without-torch` installs for Python.
test-tools: $(VENV)/.test-$(RUNTIME)

# What export/convert.py needs, torch among it.
export-tools: $(VENV)/.export-$(RUNTIME)

# The bundle that makes noise: rebuilt from a tiny random checkpoint by the export pipeline.
random-model: $(VENV)/.dev-$(RUNTIME)
	$(BIN)/python -m tests.checkpoints tiny .cache/random
	$(BIN)/python export/convert.py --model .cache/random --output tests/models/qwen3_tts_random --precision fp32 --noise --force

# The embedded model: its checkpoint converted again; how that was trained is in models/qwen3_tts_tiny/recipe.
tiny-model: $(VENV)/.dev-$(RUNTIME)
	$(BIN)/python export/convert.py --model models/qwen3_tts_tiny/checkpoint --output models/qwen3_tts_tiny --precision int8 --force \
		--alphabet models/qwen3_tts_tiny/recipe/alphabet.txt --whole-text \
		--description "A tiny model of the Qwen3-TTS layout, trained from nothing for this repository: one English voice."

$(VENV)/.made:
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		'Python 3.11 or newer is needed: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

# What builds our own package is installed once: pip would do that for every build, in an environment of its own.
$(VENV)/.builder: $(VENV)/.made
	$(PIP) install $(LOCKED) --upgrade pip hatchling editables
	touch $@

$(VENV)/.serve-$(RUNTIME): $(VENV)/.builder pyproject.toml constraints.txt
	$(ONE_RUNTIME)
	$(PIP) install $(LOCKED) --no-build-isolation -e '.[$(RUNTIME),formats,wyoming]'
	touch $@

$(VENV)/.export-$(RUNTIME): $(VENV)/.builder pyproject.toml constraints.txt
	$(ONE_RUNTIME)
	$(TORCH)
	$(PIP) install $(LOCKED) --no-build-isolation -e '.[$(RUNTIME),export]'
	touch $@

$(VENV)/.docs: $(VENV)/.builder pyproject.toml constraints.txt
	$(PIP) install $(LOCKED) --no-build-isolation -e '.[docs]'
	touch $@

$(VENV)/.python-$(RUNTIME): $(VENV)/.builder pyproject.toml constraints.txt
	$(ONE_RUNTIME)
	$(PIP) install $(LOCKED) --no-build-isolation -e '.[$(RUNTIME),server-test]'
	touch $@

# What names an ONNX Runtime, or more than a test needs, is installed without its own dependencies.
TEST_TOOLS := dashscope==2.0.2 faster-whisper==1.2.1 hibari-tts==0.2.1

$(VENV)/.test-$(RUNTIME): $(VENV)/.builder pyproject.toml constraints.txt
	$(ONE_RUNTIME)
	$(PIP) install $(LOCKED) --no-build-isolation -e '.[$(RUNTIME),test]'
	$(PIP) install --no-deps $(TEST_TOOLS)
	touch $@

# The official package is the tests' oracle; what it pins and what it needs for its 25 Hz tokenizer stays away.
$(VENV)/.dev-$(RUNTIME): $(VENV)/.builder pyproject.toml constraints.txt
	$(ONE_RUNTIME)
	$(TORCH)
	$(PIP) install $(LOCKED) --no-build-isolation -e '.[$(RUNTIME),export,dev]'
	$(PIP) install --no-deps qwen-tts==0.1.1 $(TEST_TOOLS)
	touch $@

tests/node/node_modules: tests/node/package-lock.json
	cd tests/node && npm ci --silent --no-audit --no-fund
	touch $@

clean:
	rm -rf $(VENV) .cache tests/node/node_modules

# Each target is complete on a fresh clone: it first sets up .venv, once, from the lock.
PYTHON ?= python3
VENV ?= .venv
UV_VERSION = 0.13.9

BIN = $(VENV)/bin
# An installer that is many times faster than pip; where it cannot be had, pip does the same.
UV = $(shell command -v uv || echo $(BIN)/uv)

.PHONY: hopper test dev lock

# Goes on with the run of an earlier call that was stopped.
hopper: $(VENV)/runtime.stamp
	$(BIN)/mairl train Hopper-v5 --episodes 1 --out runs/hopper \
	  $(if $(wildcard runs/hopper/config.json),--resume)

test: dev
	$(BIN)/python -m pytest -n auto --dist loadfile

dev: $(VENV)/dev.stamp

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "mairl needs Python 3.11 or newer, and '$(PYTHON)' is not." \
	    "Name one that is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@command -v uv >/dev/null || $(BIN)/python -m pip install -q --disable-pip-version-check \
	  --only-binary :all: uv==$(UV_VERSION) || echo "No uv; installing with pip, which is slower"

$(VENV)/runtime.stamp: requirements.lock pyproject.toml | $(BIN)/python
	@$(call install,requirements.lock)
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock pyproject.toml | $(BIN)/python
	@$(call install,requirements-dev.lock)
	@touch $@ $(VENV)/runtime.stamp

# The lock holds the build backend too: nothing unpinned is fetched.
define install
echo "Installing the packages of $(1) (the first time, some 300 MB are downloaded)"; \
self="--no-deps --no-build-isolation -e ."; \
if test -x "$(UV)" && $(UV) pip install -q --python $(BIN)/python -r $(1); then \
  $(UV) pip install -q --python $(BIN)/python $$self; \
else \
  $(BIN)/python -m pip install -q --disable-pip-version-check --no-compile -r $(1) && \
  $(BIN)/python -m pip install -q --disable-pip-version-check $$self; \
fi
endef

# Remake both locks with the newest versions that pyproject.toml allows (needs uv).
lock: export UV_CUSTOM_COMPILE_COMMAND = make lock
lock: | $(BIN)/python
	$(compile) --group build -o requirements.lock
	$(compile) --group build --extra dev -c requirements.lock -o requirements-dev.lock

compile = $(UV) pip compile -q -U --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-annotate pyproject.toml

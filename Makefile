# One command for each thing one does here. uv is used where it is installed, else put into .uv; nothing else is needed
# but Python 3.11+, make and a package index.
PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
RUN := $(UV) run --no-sync
export PATH := $(CURDIR)/.uv/bin:$(PATH)

.PHONY: demo test check format setup bench kills chaos e2e gate mutate audit clean

demo: setup  ## the whole main job, offline, on an embedded tiny model
	$(RUN) mlx-training demo

test: setup  ## unit, integration and end-to-end tests
	$(RUN) pytest -n 3 -m "not slow"

kills: setup  ## the long form of the resume tests: every optimizer, 75 kills, 100 power cuts (about half an hour)
	$(RUN) pytest -m slow tests/slow/test_exactness.py

chaos: setup  ## hundreds of rounds of faults on real jobs under two servers and three sessions
	$(RUN) pytest -m slow tests/slow/test_chaos.py

check: setup  ## what CI checks besides the tests: format, lint, types, generated tables
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) pyright
	$(RUN) python scripts/generate_docs.py --check

format: setup
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

e2e: setup  ## what takes too long for `make test`: both versions of the client, ranks and hosts, every example, and more
	$(RUN) pytest -n 3 tests/e2e
	$(RUN) pytest -n 3 -m slow tests/integration tests/unit

gate: setup  ## the gate's long suites: labels checked by really running the cases, 100,000 generated commands
	$(RUN) pytest -m slow tests/guard
	$(RUN) python tests/guard/fuzz.py --count 100000 --seed 2026

mutate: setup  ## each mistake of tests/mutations.yaml made alone: does a test notice? (about half an hour)
	$(RUN) python scripts/mutate.py

audit: setup  ## known vulnerabilities in the pinned dependencies
	$(RUN) python scripts/audit.py

bench: setup  ## every measurement (about 80 minutes on a quiet machine), into benchmarks/RESULTS.md
	$(RUN) python benchmarks/results.py

setup: .venv/.synced

.venv/.synced: pyproject.toml uv.lock | $(filter .uv/bin/uv,$(UV))
	$(UV) sync --frozen --extra mlx --extra plot --extra parquet --extra datasets --extra rouge --compile-bytecode
	@touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv

clean:
	rm -rf .venv .uv .pytest_cache .ruff_cache .hypothesis demo-run

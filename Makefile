# Everything works on a machine that has Python 3.11+, make and a package index: no uv, no node, no compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL ?= SmolLM2-135M-Instruct

.PHONY: run test check check-all format lock bench clean

run: $(VENV)/.run  ## serve the small model that comes from the package index
	$(BIN)/mesh-llm --model $(MODEL)

test: check  ## all checks, then every test with real engines
	$(BIN)/pytest -q -n 2 --dist loadfile

check-all: check  ## as test, with a thousand seeds for each simulated scenario and everything else as often as it is worth in an hour or two
	MESH_LLM_SEEDS=1000 MESH_LLM_PROMPTS=20 MESH_LLM_KILLS=200 \
	    MESH_LLM_SURFACES=1 MESH_LLM_SOAK=1000 MESH_LLM_FUZZ=2000 $(BIN)/pytest -q --timeout 7200

check: $(VENV)/.dev  ## format, lint, import directions, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.run  ## the gateway and the mesh against the bare engine; prints the tables of docs/benchmarks.md
	$(BIN)/python -m bench.gateway
	$(BIN)/python -m bench.mesh
	$(BIN)/python -m bench.transport
	$(BIN)/python -m bench.gossip_traffic

lock:  ## pin the newest versions that pyproject.toml allows, with hashes (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --group dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml scripts/make_venv.py
	$(PYTHON) scripts/make_venv.py $(VENV)
	$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(BIN)/python -m pip install -q --require-hashes -r requirements-dev.lock
	@touch $@

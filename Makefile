# Tasks of the project; `make` lists them.

PYTHON ?= python3

# The virtual environment. A stamp in it records what is installed, so nothing is installed twice.
VENV := .venv
BIN := $(VENV)/bin
SERVING := $(VENV)/serving
TESTING := $(VENV)/testing
PREFECT := $(VENV)/prefect

# Sources of the pages, which the installation builds.
PAGES := hatch_build.py schema.graphql $(filter-out %/documents.ts,$(wildcard $(addprefix src/runstate/web/,*.* page/* graphiql/*.* graphiql/queries/*)))

# Number of processes that run tests; 0 runs them one after another.
WORKERS ?= auto

# One make at a time changes the environment; others wait until it is done.
ONE_AT_A_TIME = $(PYTHON) -c 'import fcntl, subprocess, sys; lock = open(".venv.lock", "w"); \
	fcntl.flock(lock, fcntl.LOCK_EX); sys.exit(subprocess.call(sys.argv[1:]))'
INSTALL = PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_BUILD_CONSTRAINT=$(CURDIR)/constraints.txt \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help serve migrate migration prefect test check bench schema states prefect-page pages format constraints clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

serve: $(SERVING) ## Serve on http://127.0.0.1:4200/graphql; configure with RUNSTATE_HOST, RUNSTATE_PORT, RUNSTATE_DATABASE_URL ...
	@exec $(BIN)/python -m runstate serve

migrate: $(SERVING) ## Migrate the database to the newest schema version
	@exec $(BIN)/python -m runstate migrate

migration: $(TESTING) ## Write the next migration from the row classes: make migration NAME=what_changes
	@$(BIN)/python -m tools.migration $(NAME)

prefect: $(PREFECT)/installed ## Install Prefect in an environment of its own, for the tests that run its programs

test: $(TESTING) ## Run all tests on SQLite and PostgreSQL (RUNSTATE_TEST_POSTGRES_URL, or a server of its own)
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGUMENTS)

check: $(TESTING) ## Check style, types, imports, the schema and the English of texts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m runstate schema | diff -u schema.graphql -
	$(BIN)/python tools/prose.py

bench: $(TESTING) ## Measure all kinds of work against bare loops over the databases; ARGUMENTS="--only page --seconds 20"
	@$(BIN)/python -m benchmarks.bench $(ARGUMENTS)

schema: $(SERVING) ## Write schema.graphql from the code
	@$(BIN)/python -m runstate schema > schema.graphql.new && mv schema.graphql.new schema.graphql

states: $(SERVING) ## Write docs/states.md from the rules
	@$(BIN)/python -c 'from runstate.core.checks.explain import states_page; print(states_page(), end="")' > docs/states.md

prefect-page: $(SERVING) ## Write the tables of docs/prefect.md from the tests and the endpoints
	@$(BIN)/python -m tools.prefect_page

pages: $(SERVING) ## Build the pages of the server if their sources have changed
	@RUNSTATE_WEB=required $(INSTALL) --no-deps -e .

format: $(TESTING) ## Format the source
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

constraints: ## Write the newest compatible versions to constraints.txt
	$(PYTHON) -m venv --clear $(VENV).newest
	$(VENV).newest/bin/python -m pip install --quiet --upgrade -e '.[test]' hatchling editables
	(echo '# Versions that were tested together; written by `make constraints`.' && $(VENV).newest/bin/python -m pip freeze --exclude-editable) > constraints.txt
	rm -r $(VENV).newest

clean: ## Remove everything that was built, except databases
	rm -rf $(VENV) $(VENV).lock build dist src/runstate/web/built src/runstate/web/node_modules tests/clients/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests tools -name __pycache__ -prune -exec rm -r {} +

ifdef LOCKED

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("runstate needs Python 3.11 or newer: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(SERVING): pyproject.toml constraints.txt $(PAGES) | $(BIN)/python
	$(INSTALL) -e .
	@touch $@

$(TESTING): pyproject.toml constraints.txt $(PAGES) | $(BIN)/python
	$(INSTALL) -e '.[test]'
	@touch $(SERVING) $@

$(PREFECT)/installed: tests/prefect/requirements.txt | $(BIN)/python
	$(PYTHON) -m venv $(PREFECT)
	$(PREFECT)/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r $<
	@touch $@

else

$(PREFECT)/installed: tests/prefect/requirements.txt
	@$(ONE_AT_A_TIME) $(MAKE) --no-print-directory LOCKED=yes $@

$(SERVING) $(TESTING): pyproject.toml constraints.txt $(PAGES)
	@$(ONE_AT_A_TIME) $(MAKE) --no-print-directory LOCKED=yes $@

endif

# Everything that is done to this project, one target each; `make` alone lists them.

PYTHON ?= python3

# Where the environment lives. A stamp in it says what was installed; nothing is installed twice.
VENV := .venv
BIN := $(VENV)/bin
SERVING := $(VENV)/serving
TESTING := $(VENV)/testing

# What the pages are built from, which installing does.
PAGES := hatch_build.py $(wildcard src/runstate/web/*.* src/runstate/web/queries/*)

# How many processes the tests share; 0: one after another.
WORKERS ?= auto

# Only one make at a time changes the environment; the others wait, look again and find it done.
ONE_AT_A_TIME = $(PYTHON) -c 'import fcntl, subprocess, sys; lock = open(".venv.lock", "w"); \
	fcntl.flock(lock, fcntl.LOCK_EX); sys.exit(subprocess.call(sys.argv[1:]))'
INSTALL = PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_BUILD_CONSTRAINT=$(CURDIR)/constraints.txt \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help serve migrate migration test check bench schema states pages format constraints clean

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

serve: $(SERVING) ## Serve on http://127.0.0.1:4200/graphql; RUNSTATE_HOST, RUNSTATE_PORT, RUNSTATE_DATABASE_URL ... change that
	@exec $(BIN)/python -m runstate serve

migrate: $(SERVING) ## Bring the database to the newest shape of its tables
	@exec $(BIN)/python -m runstate migrate

migration: $(TESTING) ## Write the next migration from the classes of the tables: make migration NAME=what_changes
	@$(BIN)/python -m tools.migration $(NAME)

test: $(TESTING) ## Run every test, on SQLite and on PostgreSQL (RUNSTATE_TEST_POSTGRES_URL, or one of its own)
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGUMENTS)

check: $(TESTING) ## Everything that can be said without running it: style, types, imports, the schema
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m runstate schema | diff -u schema.graphql -

bench: $(TESTING) ## Measure all kinds of work beside bare loops over the databases; ARGUMENTS="--only page --seconds 20"
	@$(BIN)/python -m benchmarks.bench $(ARGUMENTS)

schema: $(SERVING) ## Write schema.graphql from the code
	@$(BIN)/python -m runstate schema > schema.graphql.new && mv schema.graphql.new schema.graphql

states: $(SERVING) ## Write docs/states.md from the rules
	@$(BIN)/python -c 'from runstate.core.checks.explain import states_page; print(states_page(), end="")' > docs/states.md

pages: $(SERVING) ## Build the pages that the server serves, if their sources have changed
	@RUNSTATE_WEB=required $(INSTALL) --no-deps -e .

format: $(TESTING) ## Put the source into its form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

constraints: ## Write the newest versions that fit together to constraints.txt
	$(PYTHON) -m venv --clear $(VENV).newest
	$(VENV).newest/bin/python -m pip install --quiet --upgrade -e '.[test]' hatchling editables
	(echo '# What was tried together; `make constraints` writes it.' && $(VENV).newest/bin/python -m pip freeze --exclude-editable) > constraints.txt
	rm -r $(VENV).newest

clean: ## Take away what was made, but no database
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

else

$(SERVING) $(TESTING): pyproject.toml constraints.txt $(PAGES)
	@$(ONE_AT_A_TIME) $(MAKE) --no-print-directory LOCKED=yes $@

endif

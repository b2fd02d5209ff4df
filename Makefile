# The two commands of the README, and what they need. Each makes the environment where there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-benchmarks coverage test-lowest lock docs pictures soak foreign fuzz faults service lint clean

demo: $(READY)
	$(BIN)/python cli.py demo --config configs/demo.yaml --out runs/demo

# two processes, a thread each: threads that wait for one another would take the cores from both; files in their
# order, because the slow ones have few tests and would come last
test: $(READY) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# every benchmark at toy size, which `make test` leaves out because they take minutes
test-benchmarks: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m benchmark tests/benchmarks

# the documentation site, into build/docs; a warning is an error
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# the pictures of reports in docs/assets, from phantoms, by headless Chromium
pictures: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python docs/pictures.py

# the tests with the lines that they reach, commands and workers included; fails below 90 %
coverage: $(READY)
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term --cov-fail-under=90

# the tests with the lowest versions that pyproject.toml allows, in an environment of their own
LOWEST := build/lowest
test-lowest: $(LOWEST)/.ready
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -W default

# uv, because pip cannot choose the lowest versions; pip and setuptools are for the test that builds a wheel
$(LOWEST)/.ready: pyproject.toml
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --compile-bytecode \
		--resolution lowest-direct --editable ".[dev]" pip "setuptools>=77"
	@touch $@

# write constraints.txt from what is installed in $(VENV): run it after `make test` has passed
lock:
	$(BIN)/python .ci/lock.py > constraints.tmp
	mv constraints.tmp constraints.txt

# an hour of damage: ten thousand mutants, other examples of every law, and every stage killed ten times
soak: $(READY)
	$(BIN)/python tests/corpus/mutants.py 10000
	$(BIN)/python -m pytest -q --hypothesis-profile=drawn tests/imaging tests/stages
	RSNA_SEQ_KILLS=10 $(BIN)/python -m pytest -q tests/corpus/test_faults.py -k killed

# DICOM files that were not written here: packages of PyPI and Debian, fetched by name into build/foreign
foreign: $(READY)
	$(BIN)/python tests/foreign/install.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m foreign tests/foreign

# coverage-guided fuzzing of four readers, SECONDS for each: an hour in all
SECONDS ?= 900
fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[fuzz]"
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz.py --seconds $(SECONDS)

# every file of a finished run, damaged in four ways, read by every later command
faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/corpus/walk_faults.py

# whole processes of `watch` and `serve`, then 200 studies in Orthanc, every tenth damaged, with `watch` killed three
# times; needs root for a network namespace
service: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m service tests/service
	OMP_NUM_THREADS=1 $(BIN)/python tests/service/many_studies.py 200

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# pip runs again only when pyproject.toml or constraints.txt changes; the versions are those that were tested
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing rsna_seq and its dependencies into $(VENV) (some minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

# what make itself made; runs stay
clean:
	rm -rf $(VENV) build dist *.egg-info

# Every habit is one verb. Needs Python >= 3.11 with its headers, a C compiler and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD ?= release
DEMO_SECONDS ?= 15
COMPILED = $(shell find ext -name '*.pyx' | sort | sed 's|^ext/||; s|/|.|g; s|\.pyx$$||; s|^|feedhandler.|')

.PHONY: help demo test check build debug lint types format bench gates instructions stress wheel annotate clean

help:
	@echo "demo test check build debug lint types format bench gates instructions stress wheel annotate clean"

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@mkdir -p build && echo release > build/.last
	touch $@

# The modules of another build are newer than this one's C, so a switch compiles all.
build: $(VENV)/.installed
	FEEDHANDLER_BUILD=$(BUILD) $(BIN)/python setup.py -q build_ext --inplace \
	    $$(test "$$(cat build/.last)" = "$(BUILD)" || echo --force)
	@echo $(BUILD) > build/.last

# Bounds, None and initialisation checks on, no optimisation.
debug:
	$(MAKE) build BUILD=debug

demo: build
	$(BIN)/feedhandler demo --seconds $(DEMO_SECONDS)

test: build
	$(BIN)/python -m pytest

stress: build
	$(BIN)/python -m pytest -m stress -rP tests benchmarks/bench_scale.py

# Ten minutes; a goal that is missed stops nothing. What is in the pages takes longer, see there.
bench: build
	$(BIN)/python -m pytest benchmarks -q
	-$(BIN)/python -m benchmarks.bench_wire_to_ring --pairs 3
	-$(BIN)/python -m benchmarks.bench_scale --rounds 7
	$(BIN)/python -m benchmarks.plots

# The figures that must not get worse: minima and medians with room to spare.
gates: build
	$(BIN)/python -m pytest -q --benchmark-columns=min $(addprefix \
	    benchmarks/bench_ring.py::test_,publish an_empty_poll 'one_way[ring]') \
	    $(addprefix benchmarks/bench_book.py::test_,beyond_decoding deeper_books)

# More than 2 % above what benchmarks/instructions.json has fails; its --record replaces that.
instructions: build
	$(BIN)/python -m benchmarks.instructions

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint ext feedhandler
	$(BIN)/codespell README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md docs feedhandler ext tests benchmarks

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: build
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/stubtest $(COMPILED) --ignore-disjoint-bases --allowlist .stubtest-allow

check: lint types test gates

wheel: build
	$(BIN)/python -m build --wheel --outdir dist

annotate: $(VENV)/.installed
	FEEDHANDLER_ANNOTATE=1 $(BIN)/python setup.py -q build_ext --inplace --force
	@echo "open build/cython/release/ext/NAME.html"

clean:
	rm -rf build dist *.egg-info
	find feedhandler -name '*.so' -delete

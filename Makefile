# Everything runs in .venv, which `make` builds where there is none; nothing needs to be installed by hand but Python 3.11 or 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NAMESPACE := build/ns/nvc

.PHONY: demo report test check format clean

demo: $(READY)
	$(BIN)/python bench/demo.py

report: $(READY)
	$(BIN)/python bench/report.py

# Two processes of one thread each: torch's own threads would wait for each other where cores are few.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(READY) $(NAMESPACE)
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

# mypy and editors see the folders as the packages they are installed as
$(NAMESPACE):
	mkdir -p $(NAMESPACE)
	ln -sfn ../../../bitstream ../../../codec ../../../cli ../../../conformance $(NAMESPACE)/

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Everything runs in .venv, made with the newest Python that works (tools/find-python).
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: region test test-slow lint format clean

# Map where Adam is stable: out/region.zarr, out/region.png, out/region.pdf and a summary.
region: $(STAMP)
	$(BIN)/ct-adam region $(ARGS)

# The tests and doctests, without those marked slow.
test: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

# The slow ones alone.
test-slow: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal -m slow $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || "$$(tools/find-python)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)

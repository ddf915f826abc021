# Everything runs in .venv, made with the newest Python that works (tools/find-python).
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: region test test-slow lint format docs clean

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

# The site, into site/. Its environment has no JAX: the API is read from the sources, and the
# examples on the pages are run by the tests. The extra `docs` is what it needs, without the package.
DOCS := .venv-docs
DOCS_STAMP := $(DOCS)/installed

docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet $(ARGS)
	@echo "Wrote site/index.html. Its search needs a server: python3 -m http.server -d site"

$(DOCS_STAMP): pyproject.toml constraints-docs.txt
	test -x $(DOCS)/bin/python || "$$(tools/find-python)" -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-docs.txt \
		$$($(DOCS)/bin/python -c "import tomllib; \
		print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'])")
	touch $@

clean:
	rm -rf $(VENV) $(DOCS) site

# SPDX-License-Identifier: Apache-2.0
# The targets that CONTRIBUTING.md names.
.PHONY: setup test docs

BIN = .venv/bin

setup:
	python3 -m venv .venv
	$(BIN)/pip install -q -e '.[cc,test]'

test:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest

docs:
	$(BIN)/python tools/generate_docs.py README.md thread.md scenarios.md model.md coverage.md
	$(BIN)/python tools/generate_contract.py

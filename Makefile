.PHONY: help setup check test
help: ## show this
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/ -/'
setup: .venv/bin/k2 ## make .venv with k2 in it
.venv/bin/k2:
	python3 -m venv .venv && .venv/bin/pip install -q --group dev -e . || { .venv/bin/pip install -q -U pip && .venv/bin/pip install -q --group dev -e .; }
check: setup ## lint
	.venv/bin/ruff check k2stream tests --select E,F --ignore E501
test: setup ## run the tests
	.venv/bin/pytest -q -m "not kafka" tests/unit tests/properties

#!/bin/sh
# Writes requirements.lock (what k2 runs on) and requirements-dev.lock (and what its tests need) anew; needs uv.
set -eu
cd "$(dirname "$0")/.."

backend=$(mktemp)
trap 'rm -f "$backend"' EXIT
sed -n 's/^requires = \["\(hatchling[^"]*\)"\]$/\1/p' pyproject.toml >"$backend"
echo editables >>"$backend" # hatchling's own need for `--editable`

compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --extra postgres --extra s3 "$@"
}
compile pyproject.toml "$backend" --output-file requirements.lock
compile pyproject.toml "$backend" --group dev --constraint requirements.lock --output-file requirements-dev.lock

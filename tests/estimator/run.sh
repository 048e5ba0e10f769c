#!/usr/bin/env bash
# Compares the estimators with an independent version in NumPy, SciPy and statsmodels. Needs python3 with venv, and PyPI on the first run.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv="${XDG_CACHE_HOME:-$HOME/.cache}/surprisal-ci/estimator-venv"
if ! "$venv/bin/python" -c "import numpy, scipy, statsmodels" 2>/dev/null; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet numpy scipy statsmodels
fi

fixture="$(mktemp)"
trap 'rm -f "$fixture"' EXIT
cargo run --quiet -p surprisal-estimator --example fixture >"$fixture"
"$venv/bin/python" tests/estimator/check.py <"$fixture"

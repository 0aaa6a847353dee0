#!/bin/sh
# Sets up a virtual environment (in $VENV, .venv by default) and runs the tests in it, a file at a time on each core;
# arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
[ -x "$VENV/bin/python" ] || "${PYTHON:-python3}" -m venv "$VENV"
"$VENV/bin/pip" install --quiet --constraint constraints.txt --editable ".[cpu,dev]"
exec "$VENV/bin/pytest" -n logical --maxprocesses 4 --dist loadfile "$@"

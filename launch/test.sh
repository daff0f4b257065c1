#!/usr/bin/env bash
# Installs what is missing and runs the tests; arguments go to pytest.
#   bash launch/test.sh [-m slow] [-k NAME]
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/setup.sh
exec .venv/bin/python -m pytest "$@"

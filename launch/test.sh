#!/usr/bin/env bash
# Installs what is missing and runs the tests, a process for each core; arguments go to pytest.
#   bash launch/test.sh [-m slow] [-k NAME] [-n 0]
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/setup.sh
# A peer of FID's network, without the CUDA build of JAX that it asks for.
if ! .venv/bin/python -c 'import importlib.util as i, sys; sys.exit(not i.find_spec("fidax"))'; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps fidax==0.3.1
fi
# Beam asks for older protobuf, Pillow and PyArrow than all else is tested with, and runs on these.
if ! .venv/bin/python -c 'import importlib.util as i, sys; sys.exit(not i.find_spec("apache_beam"))'; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
        apache-beam==2.77.0 beartype cffi cryptography dnspython fastavro fasteners httplib2 \
        jsonpickle objsize proto-plus pycparser pymongo pyparsing python-dateutil pytz \
        sortedcontainers zstandard
fi
# Neighbours stay in one process as long as there is work: they share what they have compiled.
exec .venv/bin/python -m pytest -n auto --maxprocesses=8 --dist=worksteal "$@"

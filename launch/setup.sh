#!/usr/bin/env bash
# Makes .venv and installs mq_jax into it; run again, it does only what is missing.
# The CUDA build of JAX is taken where an NVIDIA driver answers, else the CPU build.
#   PYTHON=python3.12 bash launch/setup.sh    picks the interpreter
set -euo pipefail
cd "$(dirname "$0")/.."

extras=dev
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    extras=cuda12,dev
fi

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
fi
if [ -z "$python" ]; then
    echo "error: no Python of version 3.11 or later was found; name one: PYTHON=... bash $0" >&2
    exit 1
fi

# What is installed is known by what it was installed from.
wanted="$extras $(cksum <pyproject.toml)"
if [ -f .venv/mq_jax-installed ] && [ "$(cat .venv/mq_jax-installed)" = "$wanted" ]; then
    echo "setup: .venv is up to date ($extras)"
    exit 0
fi
if [ ! -x .venv/bin/python ]; then
    echo "setup: making .venv with $("$python" --version)"
    if ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "error: '$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi
echo "setup: installing mq_jax[$extras] and what it needs; about a minute"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
echo "$wanted" >.venv/mq_jax-installed
echo "setup: done"

#!/usr/bin/env bash
# Make a virtual environment with udipdist in it, versions pinned by configs/constraints.txt.
#   launch/install.sh [VENV] [EXTRA]      VENV defaults to .venv; EXTRA, for instance `test`, is added to `all`
# Set PYTHON to choose the interpreter, TORCH=cpu or TORCH=cuda to choose the build of torch.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
extra="[all${2:+,$2}]"
python=${PYTHON:-python3}

fail() { echo "install: $*" >&2; exit 2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "$python is not Python 3.11 or newer; set PYTHON=/path/to/python3.11"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv module; on Debian and Ubuntu: apt-get install python3-venv"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"

pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
torch=$(grep '^torch==' configs/constraints.txt)
build=${TORCH:-$(nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)}
have=$("$venv/bin/python" -c 'import importlib.metadata as m; print("torch==" + m.version("torch").split("+")[0])' 2>/dev/null || true)
if [ "$have" = "$torch" ]; then
    echo "install: $torch is there"
elif [ "$build" = cpu ] && [ "$(uname -s)" = Linux ]; then
    # The CPU build is marked "+cpu". PyTorch's own index has it; a local wheel folder or mirror may have it too.
    echo "install: $torch for CPU (no NVIDIA GPU seen)"
    pip install "$torch+cpu" 2>/dev/null ||
        pip install --index-url https://download.pytorch.org/whl/cpu "$torch+cpu" ||
        fail "the CPU build of torch could not be had; check the network, or set TORCH=cuda for the ordinary build"
else
    echo "install: $torch ($build)"
    pip install "$torch"
fi
echo "install: udipdist$extra and what it needs"
pip install --constraint configs/constraints.txt --editable ".$extra"
"$venv/bin/python" -m hpc

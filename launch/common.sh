# shellcheck shell=bash
# What the scripts of this folder share; they source it. First the site file: UDIPDIST_SITE, or site.sh in this folder.
set -euo pipefail
launch=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() { echo "$(basename "$0"): $*" >&2; exit 2; }

site=${UDIPDIST_SITE:-$launch/site.sh}
if [ -e "$site" ]; then
    # shellcheck source=launch/site.example.sh
    . "$site"
elif [ -n "${UDIPDIST_SITE:-}" ]; then
    fail "UDIPDIST_SITE=$site: there is no such file"
fi

# The python of this copy's own environment (launch/install.sh), else that of the shell.
python=${UDIPDIST_PYTHON:-$launch/../.venv/bin/python}
[ -x "$python" ] || python=$(command -v python3) || fail "no python3 on the PATH; run launch/install.sh"

# Modules come from where they are installed, or from this copy, and not from the folder in which the line is typed.
export PYTHONSAFEPATH=1
"$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("udipdist") is None)' ||
    export PYTHONPATH=${launch%/launch}${PYTHONPATH:+:$PYTHONPATH}

# The addresses of one network (INTERFACE) for everything that meets: gloo, NCCL and torchrun.
address=
if [ -n "${INTERFACE:-}" ]; then
    export GLOO_SOCKET_IFNAME=$INTERFACE NCCL_SOCKET_IFNAME=$INTERFACE
    address=$(ip -4 -o addr show dev "$INTERFACE" 2>/dev/null | awk '{ sub("/.*", "", $4); print $4; exit }') || true
    [ -n "$address" ] || fail "INTERFACE=$INTERFACE: $(uname -n) has no such network with an IPv4 address"
fi

# usage: print the lines that open a script, then end.
usage() { awk 'NR == 1 { next } !/^#/ || /^# shellcheck/ { exit } { sub("^# ?", ""); print }' "$0" >&2; exit 2; }

# ranks: how many ranks this node gets: RANKS, else one for each GPU that this process may use, else 1.
ranks() {
    local gpus=0
    if [ -n "${RANKS:-}" ]; then
        echo "$RANKS"
        return
    elif [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
        gpus=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | wc -l)
    elif command -v nvidia-smi >/dev/null; then
        gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU') || gpus=0
    fi
    echo $((gpus > 0 ? gpus : 1))
}

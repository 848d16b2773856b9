#!/usr/bin/env bash
# Train with DeepSpeed's launcher.
#   launch/deepspeed.sh train.yaml [key=value ...]                              this node
#   HOSTFILE=hosts launch/deepspeed.sh train.yaml [key=value ...]               all nodes in hosts, from one, by pdsh
#   HOSTFILE=hosts NODE_RANK=0 launch/deepspeed.sh train.yaml [key=value ...]   without ssh: on each node, 0, 1, 2 ...
# A line of hosts: NAME slots=RANKS. pdsh needs ssh without a password, and this folder at the same path on all nodes.
# RANKS      ranks on this node where there is no HOSTFILE; default one for each GPU, or 1
# HEAD       address of the first host in hosts, where it is not its name there
# PORT       a free port of the first host; default 29500
# To stop and save, signal the ranks themselves: this launcher ends them at once. launch/torchrun.sh hands signals on.
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"
[ $# -ge 1 ] || usage
words=(--master_port "${PORT:-29500}")
if [ -z "${HOSTFILE:-}" ]; then
    words+=(--hostfile /dev/null --num_gpus "$(ranks)")
else
    [ -r "$HOSTFILE" ] || fail "HOSTFILE=$HOSTFILE: there is no such file"
    HEAD=${HEAD:-$(awk '!/^ *(#|$)/ { print $1; exit }' "$HOSTFILE")}
    words+=(--hostfile "$HOSTFILE" --master_addr "$HEAD")
    if [ -n "${NODE_RANK:-}" ]; then
        words+=(--no_ssh --node_rank "$NODE_RANK")
    else
        # The other nodes get of this shell what this file of DeepSpeed's names, and nothing else.
        export DS_ENV_FILE
        DS_ENV_FILE=$(mktemp)
        trap 'rm -f "$DS_ENV_FILE"' EXIT
        env | grep -E '^(NCCL|GLOO|CUDA|OMP|TORCH)_[A-Z0-9_]*=[^ ]*$' >"$DS_ENV_FILE" || true
        words+=(--force_multi)
    fi
fi
"$python" -m deepspeed.launcher.runner "${words[@]}" --module udipdist train "$@"

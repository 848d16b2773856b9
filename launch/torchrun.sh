#!/usr/bin/env bash
# Train with torchrun: starts the ranks of this node and waits for them.
#   launch/torchrun.sh train.yaml [key=value ...]                      one node
#   NODES=2 HEAD=host1 launch/torchrun.sh train.yaml [key=value ...]   two nodes: this line on each of them
# RANKS      ranks on this node; default one for each GPU, or 1
# RESTARTS   how often all ranks start again, from the last checkpoint, after one has crashed; default 3
# PORT       a free port of HEAD; default 29400
# RUN        a name for this run, the same on all nodes; needed where two runs share HEAD
# NODE_RANK  0 on HEAD, 1, 2 ... elsewhere; needed where HEAD does not know itself by that name
# Ends with 75 where a signal (SIGTERM, SIGUSR1) stopped the run: it is saved, and the same line goes on.
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"
[ $# -ge 1 ] || usage
words=(--nproc-per-node "$(ranks)" --max-restarts "${RESTARTS:-3}")
if [ "${NODES:-1}" = 1 ]; then
    words+=(--standalone)
else
    [ -n "${HEAD:-}" ] || fail "NODES=$NODES needs HEAD=HOST, the node where the ranks meet"
    words+=(--nnodes "$NODES" --rdzv-backend c10d --rdzv-endpoint "$HEAD:${PORT:-29400}" --rdzv-id "${RUN:-udipdist}")
    [ -z "$address" ] || words+=(--local-addr "$address")
    [ -z "${NODE_RANK:-}" ] || words+=(--rdzv-conf "is_host=$((NODE_RANK == 0))")
fi
exec "$python" -m hpc.torchrun "${words[@]}" -m udipdist train "$@"

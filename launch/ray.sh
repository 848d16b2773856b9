#!/usr/bin/env bash
# What a Slurm task does in ray.sbatch: the head of Ray on the first node, a worker of Ray on the others.
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"
[ -n "${SLURM_STEP_ID:-}" ] && [ -n "${RAY_HEAD:-}" ] || usage
cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
words=(start --block --disable-usage-stats --num-cpus "$cpus" --object-store-memory 100000000 --log-style record)
if [ "$SLURM_NODEID" = 0 ]; then
    exec "$python" -m ray.scripts.scripts "${words[@]}" --head --node-ip-address "$RAY_HEAD" --port "$RAY_PORT" \
        --temp-dir "$RAY_FOLDER" --include-dashboard false --ray-client-server-port $((RAY_PORT + 1))
fi
mine=${address:-$(getent ahostsv4 "$(uname -n)" | awk '{ print $1; exit }')}
until (exec 3<>"/dev/tcp/$RAY_HEAD/$RAY_PORT") 2>/dev/null; do sleep 1; done  # Ray's own patience is short
exec "$python" -m ray.scripts.scripts "${words[@]}" --address "$RAY_HEAD:$RAY_PORT" --node-ip-address "$mine"

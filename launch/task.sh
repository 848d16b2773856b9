#!/usr/bin/env bash
# What a Slurm task does to train; srun starts it, in train.sbatch or by hand:
#   srun --nodes=2 --ntasks-per-node=1 launch/task.sh train.yaml [key=value ...]   torchrun in each task
#   srun --nodes=2 --ntasks-per-node=4 launch/task.sh train.yaml [key=value ...]   each task is a rank
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"
[ $# -ge 1 ] || usage
[ -n "${SLURM_STEP_ID:-}" ] || fail "is for srun; without Slurm: launch/torchrun.sh"
hosts=$(scontrol show hostnames "$SLURM_STEP_NODELIST")
head=${hosts%%$'\n'*}
# Two runs may share a node: each has its port, below those that the system gives away itself.
port=$((15000 + (SLURM_JOB_ID * 17 + SLURM_STEP_ID) % 15000))
if [ "$SLURM_STEP_NUM_TASKS" = "$SLURM_STEP_NUM_NODES" ]; then
    export NODES=$SLURM_STEP_NUM_NODES HEAD=$head PORT=$port NODE_RANK=$SLURM_NODEID RUN=$SLURM_JOB_ID.$SLURM_STEP_ID
    exec "$launch/torchrun.sh" "$@"
fi
export MASTER_ADDR=$head MASTER_PORT=$port
exec "$python" -m udipdist train "$@"

# shellcheck shell=bash
# What differs between clusters, and nothing else. Copy it to launch/site.sh, or point UDIPDIST_SITE at a copy; every
# script here sources it, on each node. Leave out what your cluster does not need.

# Software.
# module purge; module load gcc cuda
# UDIPDIST_PYTHON=$HOME/udipdist/.venv/bin/python

# The network between the nodes, as `ip addr` calls it. Needed where a node's own name stands for 127.0.1.1 in its
# /etc/hosts, or where nodes have several networks and the first is a slow one.
# INTERFACE=ib0
# export NCCL_IB_HCA=mlx5

# Slurm: sbatch reads these; source this file in the shell that calls sbatch. Options on its command line win.
# export SBATCH_PARTITION=gpu SBATCH_ACCOUNT=brain SBATCH_TIMELIMIT=24:00:00
# Seconds before the time limit at which the run saves and is queued again; the default in train.sbatch is 120.
# export SBATCH_SIGNAL=USR1@300

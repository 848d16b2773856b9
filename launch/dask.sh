#!/usr/bin/env bash
# A Dask scheduler here, and workers on other hosts over ssh, for cluster.address=FILE; Ctrl-C ends them all.
#   launch/dask.sh FILE HOST [HOST ...]     FILE: scheduler file on a disk that all hosts see; localhost is a host too
# Set WORKERS (processes a host, default 1) and UDIPDIST_PYTHON (default the python of this shell's PATH).
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,4s/^# \?//p' "$0" >&2; exit 2; }
file=$(realpath -m "$1"); shift
python=${UDIPDIST_PYTHON:-$(command -v python)}
rm -f "$file"
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null; wait' EXIT INT TERM
"$python" -m distributed.cli.dask_scheduler --scheduler-file "$file" --port 0 &
until [ -s "$file" ]; do sleep 0.2; kill -0 $!; done
for host in "$@"; do
    worker=("$python" -m distributed.cli.dask_worker --scheduler-file "$file"
        --nworkers "${WORKERS:-1}" --nthreads 1 --no-dashboard --death-timeout 60)
    # A terminal (-tt), so that the workers of a host end with the connection.
    if [ "$host" = localhost ]; then "${worker[@]}" & else ssh -tt "$host" "$(printf '%q ' "${worker[@]}")" & fi
done
wait

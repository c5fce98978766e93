#!/bin/bash
#SBATCH --job-name=g2p-sweep
#SBATCH --array=0-2%2
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --output='/home/a user/runs/sweeps/g2p-sweep-0123abcd/logs/slurm-%A_%a.log'
#SBATCH --signal=B:TERM@60
#SBATCH --no-requeue
#SBATCH --partition=long
#SBATCH --time=2:00:00
#SBATCH --mem=4G
#SBATCH --account=speech

# Written by `antiphon sweep`, which writes it anew for each submission.
runs=(
  01-seed-1
  01-seed-2
  02-seed-1
)
run=${runs[$SLURM_ARRAY_TASK_ID]}
folder='/home/a user/runs/sweeps/g2p-sweep-0123abcd'
cd '/home/a user' || exit 1
module load gcc
# A cell is what its file says: `sbatch` hands the variables that change settings on.
unset "${!ANTIPHON__@}"
rm -f "$folder/logs/$run.exit"
'/home/a user/target/debug/antiphon' run "$folder/cells/$run.toml" --no-test --runs-dir 'my runs' >>"$folder/logs/$run.log" 2>&1 &
child=$!
# Slurm tells this script that time is up; the run then saves itself.
trap 'told=1; kill -TERM "$child"' TERM
wait "$child"
code=$?
# A wait that the signal ended says nothing of the run.
if [ -n "${told-}" ]; then
  wait "$child"
  code=$?
fi
echo "$code" >"$folder/logs/$run.exit"
exit "$code"

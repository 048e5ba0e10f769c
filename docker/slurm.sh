#!/bin/bash
# An experiment in 16 shards on a Slurm cluster, against servers that already run:
#   jid=$(sbatch --parsable docker/slurm.sh experiment.toml answers)
#   sbatch --dependency=afterok:$jid --wrap 'surprisal merge answers/part-* --out answers/all && surprisal estimate experiment.toml --out answers/all'
#SBATCH --job-name=surprisal
#SBATCH --array=1-16
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --requeue
set -euo pipefail
experiment=$1 answers=$2
# A shard that is interrupted and queued again resumes from its saved answers.
exec surprisal estimate "$experiment" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --out "$answers/part-$SLURM_ARRAY_TASK_ID"

#!/bin/bash
# The full profile as a Slurm array, one shard of the runs per task (needs pyxis and enroot).
#
#   IMAGE=registry.example/hw6-benchmark:1 DATA=/data/course RESULTS=/scratch/acceptance sbatch --array=1-4 cluster/slurm.sh
#
# When all tasks have finished, on any machine:
#   python -m benchmarks report --results results/acceptance --merge /scratch/acceptance/shard-*
#   python -m benchmarks judge --results results/acceptance
#
# VGG16's weights are downloaded to RESULTS/cache/torch unless they are there.
#
# A failed gate (1), a usage error (2), missing data or weights (3) and a bug in the suite (70) end a task. After an
# infrastructure failure (4: no GPU, driver lost) it is requeued, at most twice, finished runs are skipped, and the nodes
# are listed in RESULTS/failed-nodes-*. Two minutes before its time limit, or when preempted, it saves its state and is
# requeued to resume from there (130).
#SBATCH --job-name=hw6-benchmark
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=48G
#SBATCH --time=02:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
: "${IMAGE:?the image to run}" "${DATA:?the folder with endovis/ and fashion_mnist/}" "${RESULTS:?a folder for results}"
mkdir -p "$RESULTS" "$RESULTS/cache"

srun --container-image="$IMAGE" --container-readonly --no-container-mount-home \
  --container-mounts="$DATA:/data:ro,$RESULTS:/results,$RESULTS/cache:/cache" --container-workdir=/app \
  python -m benchmarks run --profile "${PROFILE:-full}" --seeds "${SEEDS:-0 1 2}" --data /data \
  --results "/results/shard-$SLURM_ARRAY_TASK_ID" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
code=$?
task="${SLURM_ARRAY_JOB_ID:-}_$SLURM_ARRAY_TASK_ID"
if [ "$code" -eq 4 ]; then
  failed="$RESULTS/failed-nodes-$task"  # Slurm cannot exclude a node from a started job: use sbatch --exclude
  echo "$SLURMD_NODENAME" >> "$failed"
  if [ "$(wc -l < "$failed")" -le 2 ]; then
    echo "infrastructure failure on $SLURMD_NODENAME; requeued"
    scontrol requeue "$task"
  fi
elif [ "$code" -eq 130 ]; then
  echo "interrupted on $SLURMD_NODENAME; requeued to resume"
  scontrol requeue "$task"
fi
exit "$code"

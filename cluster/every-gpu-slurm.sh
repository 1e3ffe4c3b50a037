#!/bin/bash
# All runs on every GPU of every node, one task per node, and the table of the fleet (needs pyxis and enroot).
#
#   IMAGE=registry.example/hw6-benchmark:1 DATA=/data/course RESULTS=/scratch/fleet sbatch --nodes=8 cluster/every-gpu-slurm.sh
#
# The exit code is that of the table of this job's nodes, RESULTS/FLEET.md, in which a node whose task left nothing is odd
# as well. The output of each task is in RESULTS/<node>/every-gpu.log. Reads ONLY, SEEDS, PROFILE (full) and
# FINGERPRINT=1. VGG16's weights are downloaded to RESULTS/cache/torch unless they are there. If it exits with 130 (time
# limit), submit it again with --nodelist: finished runs of the same nodes are skipped.
#SBATCH --job-name=hw6-fleet
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
set -u
: "${IMAGE:?the image to run}" "${DATA:?the folder with endovis/ and fashion_mnist/}" "${RESULTS:?a folder for results}"
mkdir -p "$RESULTS" "$RESULTS/cache"
container=(--container-image="$IMAGE" --container-readonly --no-container-mount-home --container-workdir=/app
  --container-mounts="$DATA:/data:ro,$RESULTS:/results,$RESULTS/cache:/cache")

folders=()
for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
  folders+=("/results/$node")
  mkdir -p "$RESULTS/$node"
  echo "its task did not start; see the output of the job" > "$RESULTS/$node/every-gpu.log"
done
DATA=/data EVERY_GPU=1 PROFILE="${PROFILE:-full}" srun --ntasks-per-node=1 --kill-on-bad-exit=0 "${container[@]}" \
  sh -c 'export RESULTS="/results/$SLURMD_NODENAME"; exec python -m benchmarks.acceptance > "$RESULTS/every-gpu.log" 2>&1'
if [ $? -eq 130 ]; then
  echo "interrupted before all GPUs were tested; to resume, submit the job again with --nodelist=$SLURM_JOB_NODELIST"
  exit 130
fi
srun --nodes=1 --ntasks=1 "${container[@]}" python -m benchmarks fleet "${folders[@]}" --output /results

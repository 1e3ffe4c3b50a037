#!/bin/bash
# The runs on every GPU of every node, one task a node, and the table of the fleet (pyxis and enroot run the image).
#
#   IMAGE=registry.example/hw6-benchmark:1 DATA=/data/course RESULTS=/scratch/fleet sbatch --nodes=8 cluster/every-gpu-slurm.sh
#
# A task ends with 1 where it names a GPU of its own node; the job with the exit code of the whole fleet's table, which
# stands in RESULTS/FLEET.md. ONLY, SEEDS, PROFILE and FINGERPRINT=1 are heeded. After a time limit, submit it again:
# what was finished is skipped.
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

DATA=/data EVERY_GPU=1 srun --ntasks-per-node=1 --kill-on-bad-exit=0 "${container[@]}" \
  sh -c 'RESULTS="/results/$SLURMD_NODENAME" exec python -m benchmarks.acceptance'
srun --nodes=1 --ntasks=1 "${container[@]}" python -m benchmarks fleet /results --output /results

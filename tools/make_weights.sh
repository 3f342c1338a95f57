#!/usr/bin/env bash
# Makes the shipped checkpoints from nothing: drives, training, scores on held-out towns, cards.
#
#   make weights                                   both, on the CPU, hours
#   make weights DEVICE=cuda TOWNS=1000 STEPS=40000 BATCH=32
#   make weights DEVICE=cuda MODEL="maptrv2_r50 gsmap_live_r50" LIDAR=1 WIDTH=800 BATCH=16 PROCESSES=4
#
# Every model after the first starts from what it shares with the one before; INIT=FILE is what the
# first one starts from (a checkpoint of the same model, or with INIT_PARTLY=1 of another one).
# LIDAR=1 renders sweeps, which a depth loss needs. DATA=DIR and OUT=DIR say where drives and runs
# lie, SET="KEY=VALUE ..." changes the recipe. Called again after a stop it goes on where it was:
# drives that exist are kept, the training is resumed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
gsmap=.venv/bin/gsmap
device=${DEVICE:-cpu} towns=${TOWNS:-320} steps=${STEPS:-15000} batch=${BATCH:-8}
data=${DATA:-out/data/weights} out=${OUT:-runs} processes=${PROCESSES:-1}
init=${INIT:-} partly=${INIT_PARTLY:-}

synth() { # folder, first seed, towns, width
  "$gsmap" synth --out "$data/$1" --first-seed "$2" --towns "$3" --width "$4" \
    --duration 10 --rate 2 ${LIDAR:+--lidar}
}
train() {
  if [ "$processes" -gt 1 ]; then
    .venv/bin/torchrun --nproc-per-node "$processes" -m gsmap_core.cli.main train "$@"
  else
    "$gsmap" train "$@"
  fi
}
synth train 0 "$towns" "${WIDTH:-320}"
synth val 10000 "${VAL_TOWNS:-10}" "${WIDTH:-320}"
synth test 20000 "${TEST_TOWNS:-10}" 800
"$gsmap" predict "$data/test" --engine classical --figures 0 --out "$out/test_classical"

for model in ${MODEL:-maptr_tiny gsmap_live_tiny}; do
  run=$out/weights_$model-000
  if [ -e "$run/last.pt" ] && [ ! -e "$run/model.safetensors" ]; then
    train --resume "$run" --device "$device"
  elif [ ! -e "$run/model.safetensors" ]; then
    # A model that has learned something already is not shaken as hard as one from scratch.
    train --config "$model" --data "$data/train" --val "$data/val" --out "$out" \
      --name "weights_$model" --steps "$steps" --device "$device" \
      ${init:+--init "$init"} ${partly:+--init-partly} \
      --set "batch_size=$batch" ${init:+lr=4e-4} ${SET:-}
  fi
  "$gsmap" evaluate --weights "$run/model.safetensors" --data "$data/val" --store-calibration \
    --device "$device" --out "$out/val_$model"
  "$gsmap" predict "$data/test" --weights "$run/model.safetensors" --device "$device" --figures 0 \
    --out "$out/test_$model"
  # Only what could be scored replaces the checkpoint that was there.
  weights=gsmap_core/weights/$model.safetensors
  cp "$run/model.safetensors" "$weights"
  .venv/bin/python tools/write_card.py "$run" --weights "$weights" \
    --test "$out/test_$model/summary.json" --baseline "$out/test_classical/summary.json"
  init=$weights partly=1
done

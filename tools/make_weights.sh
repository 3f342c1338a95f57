#!/usr/bin/env bash
# Makes the shipped checkpoint from nothing: drives, training, scores on held-out towns, card.
#
#   make weights                                   on the CPU, hours
#   make weights DEVICE=cuda TOWNS=1000 STEPS=40000 BATCH=32
#
# INIT=FILE starts from a checkpoint, with INIT_PARTLY=1 from one of another model (MODEL=gsmap_live_tiny
# INIT=maptr_tiny INIT_PARTLY=1), DATA=DIR and OUT=DIR say where drives and runs lie. Called
# again after a stop it goes on where it was: drives that exist are kept, the training is resumed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
gsmap=.venv/bin/gsmap
device=${DEVICE:-cpu} towns=${TOWNS:-320} steps=${STEPS:-15000} batch=${BATCH:-8}
data=${DATA:-out/data/weights} out=${OUT:-runs} model=${MODEL:-maptr_tiny}

synth() { # folder, first seed, towns, width
  "$gsmap" synth --out "$data/$1" --first-seed "$2" --towns "$3" --width "$4" \
    --duration 10 --rate 2
}
synth train 0 "$towns" 320
synth val 10000 "${VAL_TOWNS:-10}" 320
synth test 20000 "${TEST_TOWNS:-10}" 800

run=$out/weights_$model-000
if [ -e "$run/last.pt" ] && [ ! -e "$run/model.safetensors" ]; then
  "$gsmap" train --resume "$run" --device "$device"
elif [ ! -e "$run/model.safetensors" ]; then
  "$gsmap" train --config "$model" --data "$data/train" --val "$data/val" --out "$out" \
    --name "weights_$model" --steps "$steps" --device "$device" \
    ${INIT:+--init "$INIT"} ${INIT_PARTLY:+--init-partly} \
    --set "batch_size=$batch" ${SET:-}
fi
weights=gsmap_core/weights/$model.safetensors
"$gsmap" predict "$data/test" --weights "$run/model.safetensors" --device "$device" --figures 0 \
  --out "$out/test_$model"
"$gsmap" predict "$data/test" --engine classical --figures 0 --out "$out/test_classical"
cp "$run/model.safetensors" "$weights"
.venv/bin/python tools/write_card.py "$run" --weights "$weights" \
  --test "$out/test_$model/summary.json" --baseline "$out/test_classical/summary.json"

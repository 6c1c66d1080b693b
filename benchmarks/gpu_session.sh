#!/bin/bash
# Measure a GPU that is lent for some minutes: every step is a process of its own with its own time limit, and the first
# ones tell most, so that nothing is lost when the time is up.
#
# usage: gpu_session.sh SKELETONS RESULTS [provider]
#   SKELETONS  folder of what `python -m benchmarks.skeleton strip` wrote, one folder a bundle
#   RESULTS    folder for the logs, which are printed too
#   provider   cuda; cpu rehearses it
# PYTHON names the interpreter; ONLY is a regular expression for the names of the steps to take.
set -u
skeletons=$(realpath "$1") results=$2 provider=${3:-cuda}
python=${PYTHON:-python3}
bundles=$(mktemp -d)
mkdir -p "$results"
cd "$(dirname "$0")/.." || exit
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

# step NAME SECONDS COMMAND...
step() {
  local name=$1 seconds=$2 began=$SECONDS
  shift 2
  [[ $name =~ ${ONLY:-.} ]] || return 0
  echo "== $name"
  timeout -k 5 "$seconds" "$@" >"$results/$name.log" 2>&1
  local rc=$?
  cut -c1-400 "$results/$name.log" | grep -v ScatterND | tail -60
  echo "== $name: rc $rc, $((SECONDS - began)) s of $seconds"
  return $rc
}
fill() { "$python" -m benchmarks.skeleton fill "$skeletons/$1" "$bundles/$1"; }
gpu() { # NAME SECONDS BUNDLE OPTIONS...
  local name=$1 seconds=$2 bundle=$3
  shift 3
  [ -d "$skeletons/$bundle" ] || return 0
  [ -d "$bundles/$bundle" ] || { [[ $name =~ ${ONLY:-.} ]] && fill "$bundle"; }
  step "$name" "$seconds" "$python" -m benchmarks.gpu --provider "$provider" --bundle "$bundles/$bundle" "$@"
}
EAGER=(--option talker.enable_cuda_graph=0 code_predictor.enable_cuda_graph=0 codec_decoder.enable_cuda_graph=0)

step machine 20 bash -c 'nvidia-smi || true; nproc; free -g; '"$python"' -c "import onnxruntime as o, sys; print(sys.version, o.__version__, o.get_available_providers())"'
main=$(cd "$skeletons" && ls | head -1)
gpu placement 60 "$main" --steps placement
gpu one 60 "$main" --steps one || exit  # nothing runs: the time is better saved
gpu parity 120 "$main" --steps parity
gpu rows 90 "$main" --steps rows --rows 8 32 64 128
gpu decoder 60 "$main" --steps decoder
gpu decoder-search 60 "$main" --steps decoder --option codec_decoder.cudnn_conv_algo_search=EXHAUSTIVE
for other in $(cd "$skeletons" && ls | tail -n +2); do
  gpu "one-$other" 60 "$other" --steps one
done
gpu launches 60 "$main" --steps launches
gpu tuned 60 "$main" --steps one --entry ep.cuda.enable_gemm_auto_tune=1
ORT_ENABLE_XQA=0 gpu no-xqa 60 "$main" --steps one
gpu eager 60 "$main" --steps one "${EAGER[@]}"
gpu decoder-exact 60 "$main" --steps decoder --option codec_decoder.use_tf32=0
for other in $(cd "$skeletons" && ls | tail -n +2); do
  gpu "parity-$other" 90 "$other" --steps parity
done
rm -rf "$bundles"

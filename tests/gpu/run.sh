#!/bin/sh
# The rows of docs/gpu.md, measured on this machine's GPU: needs Python and PyTorch, and the wheels of `collect.sh`.
#   tests/gpu/run.sh [--out FOLDER] [--tiny] [--row NAME]      PYTHON=... for another interpreter, WHEELS=... for a folder
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
wheels=${WHEELS:-build/gpu-wheels}
if [ -d "$wheels" ]; then
	site=$(mktemp -d)
	trap 'rm -rf "$site"' EXIT
	packages=$(sed 's/#.*//' tests/gpu/packages.txt)
	install() {
		"$python" -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check \
			--find-links "$wheels" --target "$site" "$@"
	}
	# A package without a wheel for this Python costs the rows that need it, not all of them.
	install $packages || for name in $packages; do
		install "$name" || echo "$name: no wheel for this machine in $wheels"
	done
	export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}"
else
	export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
fi
# The only process of its job talks to itself; nothing is looked for on a network.
export NCCL_SOCKET_IFNAME=lo GLOO_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1 CUDA_MODULE_LOADING=LAZY
"$python" -m tests.gpu.run "$@"

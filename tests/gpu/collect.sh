#!/bin/sh
# Wheels for `run.sh`, into build/gpu-wheels (or the folder given): what a machine with PyTorch may lack.
#   tests/gpu/collect.sh [FOLDER]      PYTHONS="3.12" for one version of Python only
# DeepSpeed is built here, without its compiled operators. torch, numpy and the like are the machine's own.
set -eu
cd "$(dirname "$0")/../.."
folder=${1:-build/gpu-wheels}
python=${PYTHON:-.venv/bin/python}
packages=$(sed 's/#.*//' tests/gpu/packages.txt | grep -v '^ *$')
platforms="--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64"
rm -rf "$folder"
mkdir -p "$folder"
DS_BUILD_OPS=0 "$python" -m pip wheel --quiet --no-deps --no-build-isolation --constraint constraints.txt \
	--wheel-dir "$folder" deepspeed
for version in ${PYTHONS:-3.11 3.12 3.13}; do
	"$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version "$version" \
		$platforms --constraint constraints.txt --find-links "$folder" --dest "$folder" $packages
done
size=$(du -sm "$folder" | cut -f1)
echo "$folder: $(ls "$folder" | wc -l) wheels, $size MB"
[ "$size" -le 60 ] || { echo "more than 60 MB: take names out of tests/gpu/packages.txt"; exit 1; }

# Image of the pipelines' steps, of trainings on GPU pods, and of the reward service. Locked versions; user 1000; the root
# file system may be read-only where /tmp is writable. Nothing is installed when a step runs.
#
#   docker build --build-arg COMMIT=$(git rev-parse HEAD) -t registry.example.com/editloop:0.2.0 .
#
# PyPI's torch brings CUDA. For nodes without GPUs:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu --build-arg TORCH=torch==2.13.0+cpu ...
ARG BASE=docker.io/library/debian:12-slim

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ git python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/editloop
ENV PATH=/opt/editloop/bin:${PATH}
ARG PIP_EXTRA_INDEX_URL=
ARG TORCH=torch==2.13.0
WORKDIR /source
COPY constraints.txt .
# DeepSpeed is built from source, with the torch that it will run with.
RUN pip install --no-cache-dir --constraint constraints.txt pip setuptools wheel ninja py-cpuinfo packaging \
    && pip install --no-cache-dir "${TORCH}" \
    && DS_BUILD_OPS=0 pip install --no-cache-dir --no-build-isolation --constraint constraints.txt deepspeed
COPY pyproject.toml README.md LICENSE ./
COPY editloop editloop
COPY infra infra
COPY annotation annotation
COPY components components
COPY pipelines pipelines
RUN pip install --no-cache-dir --constraint constraints.txt .

FROM ${BASE}
# git: dataset versions are commits. gcc and libc6-dev are not needed: trainings use torch's own optimisers.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home editloop
COPY --from=build /opt/editloop /opt/editloop
ARG COMMIT=
ENV PATH=/opt/editloop/bin:${PATH} \
    EDITLOOP_GIT_COMMIT=${COMMIT} \
    EDITLOOP_CACHE=/tmp/editloop \
    HOME=/tmp \
    HF_HUB_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 1000
WORKDIR /tmp
CMD ["editloop", "--help"]

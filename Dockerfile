# Image of the pipelines' steps, of trainings on GPU pods, of the reward service and of MLflow's server. Locked versions;
# user 1000; the root file system may be read-only where /tmp is writable. Nothing is installed when a step runs.
#
#   docker build --build-arg COMMIT=$(git rev-parse HEAD) -t registry.example.com/editloop:0.2.0 .
#
# It brings CUDA. For nodes without GPUs: --build-arg ACCELERATOR=cpu
ARG BASE=docker.io/library/debian:12-slim
ARG ACCELERATOR=cuda

FROM ${BASE} AS tools
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ git python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/editloop
ENV PATH=/opt/editloop/bin:${PATH}
WORKDIR /source
COPY constraints.txt .
RUN pip install --no-cache-dir --constraint constraints.txt pip setuptools wheel ninja py-cpuinfo packaging

# PyPI's torch is built for CUDA.
FROM tools AS torch-cuda
RUN pip install --no-cache-dir --constraint constraints.txt torch

FROM tools AS torch-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --constraint constraints.txt --index-url "${TORCH_INDEX}" \
    --extra-index-url https://pypi.org/simple torch

FROM torch-${ACCELERATOR} AS packages
# DeepSpeed is built from source, with the torch that it will run with.
RUN DS_BUILD_OPS=0 pip install --no-cache-dir --no-build-isolation --constraint constraints.txt deepspeed
COPY pyproject.toml README.md LICENSE ./
COPY editloop editloop
COPY infra infra
COPY annotation annotation
COPY components components
COPY pipelines pipelines
RUN pip install --no-cache-dir --constraint constraints.txt '.[server]'

FROM ${BASE}
# git: dataset versions are commits. postgresql-client: back-ups. No compiler: trainings use torch's own optimisers.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git postgresql-client python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home editloop
COPY --from=packages /opt/editloop /opt/editloop
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

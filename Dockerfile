# One image for every service: Python, the project in an environment of its own, and a user without rights.
#
#   docker build --tag sweetspot:0.1.0 .
#
# torch's wheels bring CUDA along: a host needs the NVIDIA driver and its container toolkit, and no CUDA of its own.
# The base image is named by tag and digest, in both stages the same.

FROM python:3.12.13-slim-bookworm@sha256:8a7e7cc04fd3e2bd787f7f24e22d5d119aa590d429b50c95dfe12b3abe52f48b AS build

RUN pip install --no-cache-dir --root-user-action=ignore uv==0.13.9
ENV UV_PROJECT_ENVIRONMENT=/opt/sweetspot \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy
WORKDIR /build

# The dependencies alone: a layer that lasts as long as pyproject.toml does. [tool.uv] exclude-newer in it fixes their
# versions by date.
COPY pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --no-dev --no-install-project

COPY README.md LICENSE ./
COPY studies studies
COPY sweetspot sweetspot
RUN --mount=type=cache,target=/root/.cache/uv uv sync --no-dev --no-editable


FROM python:3.12.13-slim-bookworm@sha256:8a7e7cc04fd3e2bd787f7f24e22d5d119aa590d429b50c95dfe12b3abe52f48b

# A new named volume takes the owner of the folder that it is mounted on: they are all made here.
RUN groupadd --gid 10001 sweetspot \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/sweetspot --shell /usr/sbin/nologin sweetspot \
 && cd /var/lib && install --directory --owner=10001 --group=10001 --mode=0750 \
    sweetspot sweetspot/artifacts sweetspot/data sweetspot/dashboard sweetspot/gpus

COPY --from=build /opt/sweetspot /opt/sweetspot
COPY --chmod=0755 deploy/one-gpu /usr/local/bin/one-gpu

# HOME is where libraries leave their caches: with a read-only file system, /tmp is what they may write.
ENV PATH=/opt/sweetspot/bin:$PATH \
    HOME=/tmp \
    SWEETSPOT_HOME=/var/lib/sweetspot \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    MKL_NUM_THREADS=1
WORKDIR /var/lib/sweetspot
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["sweetspot"]

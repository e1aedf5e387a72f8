# Segments studies and serves the bundles to viewers (docs/install.md), as a user who is not root, on a read-only root.
# For NVIDIA GPUs: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
FROM debian:bookworm-slim AS base
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*

FROM base AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" "torch>=2.6,<2.14"
COPY pyproject.toml README.md LICENSE /src/
COPY common /src/common
COPY mmb /src/mmb
COPY bundles /src/bundles
RUN /venv/bin/pip install --no-cache-dir "/src[clinic]"

FROM base
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1 USER=user
USER 1000:1000
WORKDIR /tmp
# Of the server alone; the verbs of `mmb` end by themselves.
HEALTHCHECK --start-period=2m CMD ! grep -q serve /proc/1/cmdline \
 || python -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=10)"
ENTRYPOINT ["python", "-m"]
CMD ["mmb", "--help"]

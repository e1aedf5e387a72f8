# Segments studies and serves the bundles to viewers (docs/install.md), as a user who is not root, on a read-only root.
# For NVIDIA GPUs: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" "torch>=2.6,<2.14"
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY common common
COPY mmb mmb
COPY bundles bundles
RUN /venv/bin/pip install --no-cache-dir -e ".[label]" \
 && /venv/bin/pip install --no-cache-dir --no-deps monailabel==0.8.5
ENV PATH=/venv/bin:$PATH HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1 USER=user
USER 1000:1000
# Of the server alone; the verbs of `mmb` end by themselves.
HEALTHCHECK --start-period=2m CMD ! grep -q mmb.clinic.server /proc/1/cmdline \
 || python -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=10)"
ENTRYPOINT ["python", "-m"]
CMD ["mmb", "--help"]

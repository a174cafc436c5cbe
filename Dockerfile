# syntax=docker/dockerfile:1
# The worker with its agents, not as root, without build tools. What it keeps lies under /var/lib/k2stream.
FROM python:3.12.12-slim-bookworm AS build
WORKDIR /app
# hadolint ignore=DL3008 # the compiler leaves nothing of itself in the image; its version follows the base image's
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv .venv
COPY requirements.lock ./
RUN .venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY k2stream k2stream
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && .venv/bin/pip uninstall --yes pip

FROM python:3.12.12-slim-bookworm
LABEL org.opencontainers.image.title="k2stream" \
    org.opencontainers.image.description="Market data captured exactly once, from exchange to Apache Iceberg" \
    org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --create-home --uid 10001 k2 && install -d -o k2 -g k2 -m 700 /var/lib/k2stream
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY agents agents
COPY tables tables
COPY config config
ENV PATH=/app/.venv/bin:$PATH \
    K2_HOME=/var/lib/k2stream \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
VOLUME /var/lib/k2stream
EXPOSE 6066
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:6066/healthz', timeout=4)"]
CMD ["k2", "worker"]

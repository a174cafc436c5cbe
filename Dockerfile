# syntax=docker/dockerfile:1
# The worker with its agents, not as root. What it keeps lies under /var/lib/k2stream.
FROM python:3.12.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /app
RUN python -m venv .venv
COPY requirements.lock ./
RUN .venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY k2stream k2stream
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12.12-slim-bookworm
RUN useradd --create-home --uid 10001 k2 && install -d -o k2 -g k2 -m 700 /var/lib/k2stream
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY agents agents
COPY tables tables
ENV PATH=/app/.venv/bin:$PATH K2_HOME=/var/lib/k2stream PYTHONUNBUFFERED=1
USER k2
VOLUME /var/lib/k2stream
EXPOSE 6066
CMD ["k2", "worker"]

# Both programs in one image, for x86-64 and aarch64. How to run it: docs/how-to/run-with-docker.md
FROM python:3.13-slim-bookworm AS build
WORKDIR /app
COPY requirements.lock ./
# Wheels only: a package without one for this machine ends the build here, not after an hour of compiling.
RUN python -m venv /venv \
  && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: \
    --requirement requirements.lock
COPY LICENSE meshtastic_bridge.py ai_agent.py ./
COPY meshllm ./meshllm
# The container is read-only: what is not compiled here is compiled again at every start.
RUN /venv/bin/python -m compileall -q --invalidation-mode unchecked-hash meshllm /venv/lib

FROM python:3.13-slim-bookworm
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1 PYTHONUNBUFFERED=1 HOME=/tmp
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /app /app
RUN install -d -o 10001 -g 10001 data prompts
# For `docker run` alone; compose.yaml puts the operator's own ids here. Never root.
USER 10001:10001
ENTRYPOINT ["/venv/bin/python"]
CMD ["meshtastic_bridge.py"]

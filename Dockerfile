# The server as an image: `--target cpu` (the default; amd64 and arm64) or `--target cuda` (amd64 alone).
#
#   docker build --target cpu --tag qwen3-tts-edge:cpu .
#   docker run --rm --publish 3000:3000 --env KW_SECRET_API_KEY=a-long-secret qwen3-tts-edge:cpu
#
# It needs no BuildKit, so that buildah and podman build it too: `python -m benchmarks.image` does so without any engine.

# Both stages have the same one: the virtual environment of the first refers to its Python.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/tools && python3 -m venv --without-pip /opt/qwen3-tts
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY server server
COPY export export
COPY models/qwen3_tts_tiny models/qwen3_tts_tiny
# docopt is the one dependency without a wheel; it is pure Python. From here on what has no wheel stops the build, because
# no compiler is here, and none is wanted.
RUN /opt/tools/bin/pip wheel --quiet --no-deps --constraint constraints.txt --wheel-dir /wheels . docopt
ENV PIP_ONLY_BINARY=:all: PIP_FIND_LINKS=/wheels

FROM wheel AS cpu-packages
RUN /opt/tools/bin/pip --python /opt/qwen3-tts/bin/python install --quiet --constraint constraints.txt \
    "$(echo /wheels/qwen3_tts_edge-*.whl)[cpu,formats,wyoming]"

FROM wheel AS cuda-packages
RUN /opt/tools/bin/pip --python /opt/qwen3-tts/bin/python install --quiet --constraint constraints.txt \
    "$(echo /wheels/qwen3_tts_edge-*.whl)[cuda,formats,wyoming]"

FROM ${PYTHON_IMAGE} AS runtime
LABEL org.opencontainers.image.title="qwen3-tts-edge" \
    org.opencontainers.image.description="Edge text-to-speech server: Qwen3-TTS on ONNX Runtime behind an OpenAI-compatible speech route" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/qwen3-tts/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY deploy/healthcheck.py /opt/healthcheck.py
# Bundles are mounted at /srv/models; the embedded model is served while there are none. Cloned voices are kept in
# /srv/voices, where KW_VOICES_DIR says so. A volume that is made for either takes over owner and mode, and whatever user
# id the container is given, its group is 0 where nothing else is said.
RUN install --directory --mode=0775 --owner=10001 --group=0 /srv/models /srv/voices
WORKDIR /srv
USER 10001:0
EXPOSE 3000 10200
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["python3", "-I", "/opt/healthcheck.py"]
ENTRYPOINT ["qwen3-tts"]
CMD ["serve"]

FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-packages /opt/qwen3-tts /opt/qwen3-tts

FROM runtime AS cpu
COPY --from=cpu-packages /opt/qwen3-tts /opt/qwen3-tts

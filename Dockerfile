# docker build -t barkd .                    for NVIDIA GPUs; without one it runs on the CPU
# docker build -t barkd --build-arg BUILD_IMAGE=debian:bookworm --build-arg RUN_IMAGE=debian:bookworm-slim --build-arg CUDA=OFF .
# Of CUDA the program holds what it needs; the NVIDIA Container Toolkit brings the driver. RUN_IMAGE=nvidia/cuda:13.0.2-runtime-ubuntu24.04
# has cuBLASLt as well, which is used where it is found.
ARG GO_IMAGE=golang:1.26-bookworm
ARG BUILD_IMAGE=nvidia/cuda:13.0.2-devel-ubuntu24.04
ARG RUN_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

# hadolint ignore=DL3006
FROM ${GO_IMAGE} AS go

# hadolint ignore=DL3006
FROM ${BUILD_IMAGE} AS build
ARG CUDA=ON
ARG CUDA_ARCHITECTURES=
COPY --from=go /usr/local/go /usr/local/go
ENV PATH=/usr/local/go/bin:${PATH}
WORKDIR /src
COPY tools/install-deps tools/
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends make ca-certificates \
 && tools/install-deps build \
 && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/root/.cache --mount=type=cache,target=/root/go/pkg \
    make build CUDA="${CUDA}" CUDA_ARCHITECTURES="${CUDA_ARCHITECTURES}" \
 && strip bin/barkd

# hadolint ignore=DL3006
FROM ${RUN_IMAGE}
LABEL org.opencontainers.image.title="barkd" \
      org.opencontainers.image.description="Text to speech with Bark models behind an OpenAI-compatible API"
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends libsndfile1 ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --home-dir /data --create-home barkd \
 && install -d -o barkd -g barkd /data/models /data/voices /data/jobs
COPY --from=build /src/bin/barkd /usr/local/bin/barkd
USER 10001
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV BARKD_MODELS=/data/models VOICES_DIR=/data/voices CACHE_STATE=/data/demand.json LOG_FORMAT=json
VOLUME /data
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["barkd", "health"]
ENTRYPOINT ["barkd"]
CMD ["serve"]

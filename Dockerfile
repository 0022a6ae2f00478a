# ssa in an image: `docker build -t ssa .` for processors, `docker build -t ssa:cuda --target cuda .` for NVIDIA cards.
# The build is that of the archive for machines without a network (docs/offline.md), which has its own Node.js.
# docs/offline.md says how an image is run.

FROM node:22-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY . .
RUN npm run build

FROM build AS packed
RUN npm run pack:offline -- /out && mkdir /opt/ssa && tar -xzf /out/*.tar.gz --strip-components=1 -C /opt/ssa

# With ONNX Runtime's CUDA provider for CUDA 13, and the ONNX Runtime of its version.
FROM build AS packed-cuda
RUN npm run pack:offline -- --cuda /out && mkdir /opt/ssa && tar -xzf /out/*.tar.gz --strip-components=1 -C /opt/ssa

# CUDA's libraries are the base's, the driver is the machine's: run it with --gpus all.
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04 AS cuda
COPY --from=packed-cuda /opt/ssa /opt/ssa
# Whoever runs it (--user): models and what is made of them are kept in /cache, work is done in /work.
RUN mkdir -p /cache /work && chmod 1777 /cache /work
ENV PATH=/opt/ssa/bin:$PATH HF_HOME=/cache/huggingface SSA_CACHE=/cache/ssa
VOLUME /cache
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["ssa"]

FROM debian:bookworm-slim AS cpu
COPY --from=packed /opt/ssa /opt/ssa
RUN mkdir -p /cache /work && chmod 1777 /cache /work
ENV PATH=/opt/ssa/bin:$PATH HF_HOME=/cache/huggingface SSA_CACHE=/cache/ssa
VOLUME /cache
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["ssa"]

# How to build and use it, with and without a GPU: docs/containers.md
ARG VERSION=0.1.0

FROM debian:bookworm-slim AS base
# Debian's archive drops a version when the next one comes, so a pinned one would not install for long
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/*

FROM base AS builder
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/bids_cpmae
ENV PATH=/opt/bids_cpmae/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
COPY setup.cfg ./
RUN python3 -c 'from configparser import ConfigParser as C; c = C(); c.read("setup.cfg"); \
                print(c["options"]["install_requires"])' > requirements.txt \
 && pip install --no-cache-dir -c constraints.txt -r requirements.txt bids-validator-deno
COPY . .
ARG VERSION
RUN SETUPTOOLS_SCM_PRETEND_VERSION_FOR_BIDS_CPMAE=$VERSION pip install --no-cache-dir --no-deps .

FROM base
ARG VERSION
LABEL org.opencontainers.image.title="bids_cpmae" \
      org.opencontainers.image.description="De-identify head MRI by giving the person another face (a BIDS App)" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-SA-3.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=builder /opt/bids_cpmae /opt/bids_cpmae
# any user id may run it, also one that has no home: only /tmp and what is mounted is written to
ENV PATH=/opt/bids_cpmae/bin:$PATH HOME=/tmp LANG=C.UTF-8
WORKDIR /tmp
USER 1000:1000
ENTRYPOINT ["bids-cpmae"]

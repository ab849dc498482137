# The TokMesh image: a wheel is built, tried, and installed into a slim image that has no compiler and no root.
#
#     docker build -t tokmesh .
#     docker run --read-only -p 5080:5080 -v tokmesh-data:/var/lib/tokmesh tokmesh
#
# BASE is a Debian 12 (or newer) image; its own python3 is used, so that any such base will do, also one made by debootstrap
# (docs/development.md). The first start prints the admin key on standard error: `docker logs`.
ARG BASE=debian:12-slim

FROM ${BASE} AS build
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements requirements
RUN python3 -m venv /build
COPY LICENSE MANIFEST.in README.md pyproject.toml setup.py ./
COPY .ci/smoke.py .ci/wheel_contents.py .ci/
COPY tokmesh tokmesh
COPY docs/runbooks docs/runbooks
RUN PIP_CONSTRAINT=/src/requirements/constraints.txt /build/bin/python -m pip --disable-pip-version-check -q wheel \
        --no-deps -w /wheel . \
    && python3 .ci/wheel_contents.py /wheel/tokmesh-*.whl
# The environment that ships, with encryption at rest (16 MB) and the client of NATS (whose nkeys, pure Python, has no wheel), and the
# wheel's test in it: a session's life across a SIGKILL.
RUN python3 -m venv /opt/tokmesh \
    && /opt/tokmesh/bin/python -m pip --disable-pip-version-check -q install --only-binary :all: --no-binary nkeys \
        -c requirements/constraints.txt "$(echo /wheel/tokmesh-*.whl)[encryption,cluster]" \
    && /opt/tokmesh/bin/tokmesh version \
    && python3 .ci/smoke.py /opt/tokmesh/bin/tokmesh \
    && STORAGE_KEYS=$(head -c 32 /dev/urandom | base64) python3 .ci/smoke.py /opt/tokmesh/bin/tokmesh \
        --storage.encryption.enabled=true --storage.encryption.key_variable=STORAGE_KEYS \
    && /opt/tokmesh/bin/python -m pip -q uninstall -y pip setuptools

FROM ${BASE}
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 5080 tokmesh \
    && useradd --system --uid 5080 --gid 5080 --home-dir /var/lib/tokmesh --shell /usr/sbin/nologin tokmesh \
    && install -d -m 0700 -o tokmesh -g tokmesh /var/lib/tokmesh
COPY --from=build /opt/tokmesh /opt/tokmesh
ENV PATH=/opt/tokmesh/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    TOKMESH_SERVER_HTTP_ADDRESS=0.0.0.0:5080 \
    TOKMESH_STORAGE_DIR=/var/lib/tokmesh
# By number: Kubernetes' runAsNonRoot cannot tell of a name that it is not root's.
USER 5080
WORKDIR /var/lib/tokmesh
VOLUME /var/lib/tokmesh
EXPOSE 5080
# Liveness only: a server that cannot write is not ready, and restarting it would not help.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5080/health', timeout=2).read()"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tokmesh"]
CMD ["serve"]

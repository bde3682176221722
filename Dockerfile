# The images of the services, built in the same stages:
#   docker build --build-arg SERVICE=embeddings --tag citadel-embeddings:dev .
# SERVICE is embeddings, orchestration (with the API and the migrations), monitoring (with the exporter) or
# maintenance (with beat). A package index other than pip's own is named by a pip.conf in the secret `pip_conf`.
ARG PYTHON_IMAGE=python:3.13-slim-trixie
ARG SERVICE

FROM ${PYTHON_IMAGE} AS builder
ARG SOURCE_DATE_EPOCH=0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_COMPILE=0 PIP_NO_DEPS=1 PIP_ROOT_USER_ACTION=ignore \
    PIP_CONFIG_FILE=/run/secrets/pip_conf PYTHONDONTWRITEBYTECODE=1 SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends binutils tini \
 && rm -rf /var/lib/apt/lists/*
# In addition to Python the images have an init, a user with a fixed number (no home, no shell), and a directory that this
# user can write to even under a tmpfs, which takes over the directory's mode but not its owner.
RUN mkdir --parents /skeleton/etc /skeleton/usr/bin /skeleton/run/citadel \
 && chmod 1777 /skeleton/run/citadel \
 && cp /usr/bin/tini /skeleton/usr/bin \
 && { cat /etc/passwd; echo 'citadel:x:10001:10001::/tmp:/usr/sbin/nologin'; } >/skeleton/etc/passwd \
 && { cat /etc/group; echo 'citadel:x:10001:'; } >/skeleton/etc/group \
 && find /skeleton -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip_conf \
    --mount=type=bind,source=requirements/build.txt,target=/build.txt \
    python -m pip install --quiet --require-hashes --only-binary :all: --target /tools --requirement /build.txt

FROM builder AS dependencies
ARG SERVICE
COPY docker/trim /trim
COPY requirements/${SERVICE}.txt /requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip_conf \
    python -m venv --without-pip /opt/citadel \
 && site=$(/opt/citadel/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && python -m pip --python /opt/citadel/bin/python install --quiet --require-hashes --only-binary :all: \
      --requirement /requirements.txt \
 && echo /app >"$site/citadel.pth" \
 && /trim "$site" \
 && find /opt/citadel -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM builder AS common
COPY libs/contracts /src/contracts
COPY libs/common /src/common
RUN PYTHONPATH=/tools python -m pip install --quiet --no-index --no-build-isolation --target /out/app \
      /src/contracts /src/common \
 && find /out -exec touch --date="@$SOURCE_DATE_EPOCH" {} +

FROM dependencies AS service
ARG SERVICE
COPY docker/bytecode.py /bytecode.py
COPY --from=common /out /
COPY services/${SERVICE} /src
RUN mkdir /out \
 && PYTHONPATH=/tools python -m pip install --quiet --no-index --no-build-isolation --target /out/app /src \
 && cp --recursive /out/app/. /app \
 && /opt/citadel/bin/python /bytecode.py "citadel_$SERVICE" /out \
 && find /out -exec touch --date="@$SOURCE_DATE_EPOCH" {} +

FROM ${PYTHON_IMAGE} AS runtime
COPY --from=builder /skeleton /
ENV PATH=/opt/citadel/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    CITADEL_LOG__FORMAT=json \
    CITADEL_WORKER__HEALTH_FILE=/run/citadel/health CITADEL_BEAT__HEALTH_FILE=/run/citadel/health \
    CITADEL_API__HOST=0.0.0.0 CITADEL_EXPORTER__HOST=0.0.0.0 \
    CITADEL_TELEMETRY__METRICS_HOST=0.0.0.0 CITADEL_TELEMETRY__METRICS_PORT=9464
COPY --from=dependencies /opt /opt
COPY --from=common /out /
COPY --from=service /out /
WORKDIR /run/citadel
USER 10001:10001
ENTRYPOINT ["/usr/bin/tini", "--"]
# Checks the process itself: a broker that is down does not make the container unhealthy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "citadel_common.probe"]

FROM runtime AS run-embeddings
EXPOSE 9464
CMD ["python", "-m", "citadel_embeddings"]

FROM runtime AS run-orchestration
EXPOSE 8080 9464
CMD ["python", "-m", "citadel_orchestration"]

FROM runtime AS run-monitoring
EXPOSE 9464 9808
CMD ["python", "-m", "citadel_monitoring"]

FROM runtime AS run-maintenance
EXPOSE 9464
CMD ["python", "-m", "citadel_maintenance"]

FROM run-${SERVICE}
ARG SERVICE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="citadel-${SERVICE}" \
      org.opencontainers.image.description="Citadel's ${SERVICE} service" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"

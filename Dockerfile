# Build stage with pip and Node. The final image contains the virtual environment only and runs as an unprivileged user.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/source/constraints.txt \
    PIP_BUILD_CONSTRAINT=/source/constraints.txt RUNSTATE_WEB=required
RUN python -m venv --without-pip /runstate
WORKDIR /source
COPY pyproject.toml hatch_build.py constraints.txt LICENSE README.md schema.graphql ./
COPY src src
# PIP_CONSTRAINT pins the versions.
# hadolint ignore=DL3013
RUN pip --python /runstate/bin/python install '.[otel]'

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --home-dir /data runstate
COPY --from=build /runstate /runstate
ENV PATH=/runstate/bin:$PATH PYTHONUNBUFFERED=1 RUNSTATE_HOST=0.0.0.0 RUNSTATE_PORT=4200 \
    RUNSTATE_AUTHENTICATION=keys RUNSTATE_LOG_FORMAT=json
USER 10001
WORKDIR /data
EXPOSE 4200
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:4200/healthz', timeout=3)"]
CMD ["runstate", "serve"]

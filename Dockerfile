# Built once with what it takes to build; the image keeps the environment only, and runs as nobody in particular.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/source/constraints.txt \
    PIP_BUILD_CONSTRAINT=/source/constraints.txt RUNSTATE_WEB=required
RUN python -m venv /runstate
WORKDIR /source
COPY pyproject.toml hatch_build.py constraints.txt LICENSE README.md ./
COPY src src
RUN /runstate/bin/pip install .

FROM python:3.13-slim
RUN useradd --system --create-home --home-dir /data runstate
COPY --from=build /runstate /runstate
ENV PATH=/runstate/bin:$PATH PYTHONUNBUFFERED=1 RUNSTATE_HOST=0.0.0.0 RUNSTATE_PORT=4200 \
    RUNSTATE_AUTHENTICATION=keys
USER runstate
WORKDIR /data
EXPOSE 4200
CMD ["runstate", "serve"]

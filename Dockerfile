# flux in a container: docs/guides/containers.md tells how to use it.
#
# Any base with a Python 3.10 to 3.13 that can make virtual environments will do. Nothing is installed into
# the base, so that a build needs PyPI alone. What is compiled in the first stage must run in the second:
# both have the same base.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
# pip lives in an environment of its own, so that the one that is copied holds none.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/flux
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY flux flux
# A pip.conf for another index: docker build --secret id=pip.conf,src=pip.conf .
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/flux/bin/python install --no-cache-dir --disable-pip-version-check \
    --root-user-action ignore ".[postgres,psycopg]"

FROM ${BASE}
LABEL org.opencontainers.image.title="flux" \
      org.opencontainers.image.description="Database migrations for Python projects" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/flux /opt/flux
# Written by hand, since not every base has useradd, and a number, since Kubernetes cannot tell of a name
# that it is not root's.
RUN echo "flux:x:10001:10001:flux:/project:/bin/false" >>/etc/passwd && echo "flux:x:10001:" >>/etc/group
ENV PATH=/opt/flux/bin:$PATH
# It works, or there is no image. What it imports of the standard library stays behind compiled: Docker's
# Python images come without that, and each start would do it anew.
RUN mkdir /tmp/try && cd /tmp/try && flux init && flux new --sql try && flux apply && flux status \
    && /opt/flux/bin/python -c "import psycopg, psycopg2" && rm -r /tmp/try
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Where flux.toml and migrations/ are mounted or copied to.
WORKDIR /project
USER 10001:10001
# No default command: `flux` by itself is a mistake, and exits with 2. A default that succeeds would let a
# deployment that forgot the command go on without its migrations.
ENTRYPOINT ["flux"]
STOPSIGNAL SIGTERM

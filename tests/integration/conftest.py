"""Where a table may live: every kind of catalog and of store that the settings know."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from k2stream.dev.s3 import ACCESS_KEY, BUCKET, REGION
from tests.integration.lake_site import LakeSite

Place = dict[str, Any]
"""Settings that name a catalog and a warehouse."""

PLACES = (
    pytest.param((), id="sqlite"),
    pytest.param(("postgres",), id="postgres", marks=pytest.mark.postgres),
    pytest.param(("postgres", "s3"), id="postgres-s3", marks=(pytest.mark.postgres, pytest.mark.s3)),
    pytest.param(("rest",), id="rest", marks=pytest.mark.rest),
)


@pytest.fixture(autouse=True)
def closed_catalogs() -> Iterator[None]:
    """A test's workers may die; their connections are given back."""
    yield
    while LakeSite.opened:
        LakeSite.opened.pop().close()


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """An empty one of each kind; those of servers run with `--services`."""
    return place_on(request, request.param)


def place_on(request: pytest.FixtureRequest, services: tuple[str, ...]) -> Place:
    """A namespace, and on S3 a prefix, that no other test has."""
    name, said = f"t{uuid4().hex[:12]}", Place()
    for service in services:
        server = request.getfixturevalue(service)
        if service == "s3":
            said |= s3_settings(f"http://{server.address}", server.secret()) | {"warehouse": f"s3://{BUCKET}/{name}"}
        else:
            said |= {"catalog_uri": server.exports()["K2_CATALOG_URI"], "namespace": name}
    return said


def s3_settings(endpoint: str, secret: str) -> Place:
    """How to reach an S3 server of `k2stream.dev`."""
    return {"s3_endpoint": endpoint, "s3_region": REGION, "s3_access_key_id": ACCESS_KEY, "s3_secret_access_key": secret}

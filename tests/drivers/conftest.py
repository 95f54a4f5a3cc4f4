"""The drivers log in with SCRAM: a proxy of their own before the data that the shared fixtures load."""
import pytest

from harness.sample import USERS
from harness import Proxy

PASSWORD = "driver's secret"


@pytest.fixture(scope="module")
def proxy(cluster):
    options = {"auth": {"method": "scram-sha-256"}}
    users = [{"name": "postgres", "password": PASSWORD, "admin": True}]
    with DriverProxy(cluster, keyspaces=[USERS], reference=["countries"], options=options, users=users) as proxy:
        proxy.wait_nodes()
        yield proxy


class DriverProxy(Proxy):
    """Fills in the password."""

    password = PASSWORD

    def dsn(self, dbname=None, user="postgres", **more):
        return super().dsn(dbname, user, **{"password": PASSWORD, **more})

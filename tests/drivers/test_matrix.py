"""The driver matrix: each driver's program runs its cases against a pool of five servers in transaction mode.

A program finds where to connect in its environment (`environment()` below), runs its cases one after the other
and prints a line for each: "ok NAME" or "failed NAME: what went wrong". The cases mean the same everywhere:

    connect       logs in with SCRAM; a wrong password ends in 28P01
    types         values of all common types and NULL, there and back, in each format that the driver has
    prepared      one statement often enough for the driver to prepare it on the server, in transactions of two
                  clients that swap servers
    transactions  commit, rollback, savepoint, an error inside (25P02 until it is rolled back)
    batch         many statements in one round trip (pipeline, batch), an error in the middle
    copy          COPY in and out
    cursor        a result fetched in parts
    cancel        a running statement ends in 57014 and the connection goes on
    errors        SQLSTATE, constraint and position of errors
    listen        LISTEN and NOTIFY
    many          50 clients at once; each must see its own values alone
    sharded       reads and writes by key and fan-outs on the sharded database
    orm           what an ORM adds: schema, relations, migrations
"""
import collections
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = sys.executable
JAR = "/usr/share/java/postgresql.jar"

Driver = collections.namedtuple("Driver", "name core folder command cases")

BASE = "connect types prepared transactions errors many "


def driver(name, folder, command, cases, core=False):
    return Driver(name, core, os.path.join(HERE, folder), command, cases.split())


DRIVERS = [
    driver("libpq", "c", ["{build}/libpq"], BASE + "batch copy cursor cancel listen sharded", core=True),
    driver("psycopg2", "python", [PYTHON, "run_psycopg2.py"], BASE + "copy cursor cancel listen sharded", core=True),
    driver("psycopg3", "python", [PYTHON, "run_psycopg3.py"], BASE + "batch copy cursor cancel listen sharded",
           core=True),
    driver("psycopg3 async", "python", [PYTHON, "run_psycopg3_async.py"], BASE + "batch copy cancel sharded",
           core=True),
    driver("asyncpg", "python", [PYTHON, "run_asyncpg.py"], BASE + "batch copy cursor cancel listen sharded",
           core=True),
    driver("JDBC", "java", ["java", "-XX:TieredStopAtLevel=1", "-cp", "{build}:" + JAR, "Driver"],
           BASE + "batch copy cursor cancel listen sharded", core=True),
    driver("node pg", "node", ["node", "pg.js"], BASE + "batch copy cursor cancel listen sharded", core=True),
]


# What has to be compiled or generated: folder -> commands, run in that folder.
BUILD = {
    "c": [["cc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-I/usr/include/postgresql", "-o",
           "{build}/libpq", "libpq.c", "-lpq", "-lpthread"]],
    "java": [["javac", "-Xlint:all", "-Werror", "-cp", JAR, "-d", "{build}", "Driver.java"]],
}


def cases():
    for one in DRIVERS:
        marks = [pytest.mark.core] if one.core else []
        for case in one.cases:
            yield pytest.param(one, case, marks=marks, id=f"{one.name.replace(' ', '-')}-{case}")


def environment(proxy, table):
    return {**os.environ, "PGSHUNT_HOST": proxy.host, "PGSHUNT_PORT": str(proxy.port), "PGSHUNT_USER": "postgres",
            "PGSHUNT_PASSWORD": proxy.password, "PGSHUNT_DATABASE": "plain", "PGSHUNT_SHARDED": "app",
            "PGSHUNT_TABLE": table, "PYTHONDONTWRITEBYTECODE": "1", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly",
            "NODE_NO_WARNINGS": "1"}


def run(argv, folder, env, limit=150):
    done = subprocess.run(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", timeout=limit)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def programs(cluster, data, tmp_path_factory):
    """Runs a driver's program once, compiling it first; gives {case: None or what went wrong} and its output."""
    build = str(tmp_path_factory.mktemp("drivers"))
    built, results = set(), {}

    def filled(argv):
        return [part.replace("{build}", build) for part in argv]

    def results_of(driver):
        if driver.name not in results:
            results[driver.name] = None, "did not end in time"
            folder = os.path.basename(driver.folder)
            if folder not in built:
                built.add(folder)
                for command in BUILD.get(folder, []):
                    code, output = run(filled(command), driver.folder, environment(data, ""), 300)
                    assert code == 0, output
            table = "matrix_" + "".join(letter for letter in driver.name.lower() if letter.isalnum())
            primary = cluster.shards[0].primary
            primary.sql(f"CREATE TABLE {table} (id bigint PRIMARY KEY, who int, body text CHECK (body <> 'refused'))",
                        dbname="plain")
            cluster.sync()
            code, output = run(filled(driver.command), driver.folder, environment(data, table))
            results[driver.name] = code, output
        return results[driver.name]

    yield results_of


@pytest.mark.slow
@pytest.mark.parametrize("driver, case", cases())
def test_driver(programs, driver, case):
    code, output = programs(driver)
    lines = [line for line in output.splitlines() if line in (f"ok {case}",) or line.startswith(f"failed {case}:")]
    assert lines == [f"ok {case}"], output
    assert code == 0, output

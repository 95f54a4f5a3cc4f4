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
import re
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
    driver("SQLAlchemy", "python", [PYTHON, "run_sqlalchemy.py"], BASE + "batch copy cursor cancel orm sharded"),
    driver("Django", "python", [PYTHON, "run_django.py"], BASE + "batch copy cursor cancel orm sharded"),
    driver("JDBC", "java", ["java", "-XX:TieredStopAtLevel=1", "-cp", "{build}:" + JAR, "Driver"],
           BASE + "batch copy cursor cancel listen sharded", core=True),
    driver("pgx", "go", ["{build}/pgx"], BASE + "batch copy cancel listen sharded"),
    driver("lib/pq", "go", ["{build}/libpq"], BASE + "copy cancel listen sharded"),
    driver("Ruby pg", "ruby", ["ruby", "pg.rb"], BASE + "batch copy cursor cancel listen sharded"),
    driver("PHP pgsql", "php", ["php", "pgsql.php"], BASE + "copy cursor cancel listen sharded"),
    driver("PHP PDO", "php", ["php", "pdo.php"], BASE + "copy cursor cancel listen sharded"),
    driver("DBD::Pg", "perl", ["perl", "dbd_pg.pl"], BASE + "copy cursor cancel listen sharded"),
    driver("node pg", "node", ["node", "pg.js"], BASE + "batch copy cursor cancel listen sharded", core=True),
    driver("postgres.js", "node", ["node", "postgres.js"], BASE + "batch copy cursor cancel listen sharded"),
    driver("Prisma", "node", ["node", "prisma.js"], BASE + "batch cancel orm sharded"),
    driver("TypeORM", "node", ["node", "typeorm.js"], BASE + "cursor cancel orm sharded"),
    driver("Sequelize", "node", ["node", "sequelize.js"], BASE + "cancel orm sharded"),
    driver("Knex", "node", ["node", "knex.js"], BASE + "batch cursor cancel orm sharded"),
    driver("Drizzle", "node", ["node", "drizzle.js"], BASE + "batch cancel orm sharded"),
]


# What has to be compiled or generated: folder, or driver -> commands, run in the driver's folder.
BUILD = {
    "Prisma": [["../node_modules/.bin/prisma", "generate", "--schema", "schema.prisma"]],
    "c": [["cc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-I/usr/include/postgresql", "-o",
           "{build}/libpq", "libpq.c", "-lpq", "-lpthread"]],
    "java": [["javac", "-Xlint:all", "-Werror", "-cp", JAR, "-d", "{build}", "Driver.java"]],
    "go": [["go", "build", "-o", "{build}/", "./pgx", "./libpq"]],
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
            # Prisma's generator would download an engine that it does not use, were there none.
            "PRISMA_SCHEMA_ENGINE_BINARY": "/bin/true", "CHECKPOINT_DISABLE": "1", "NODE_NO_WARNINGS": "1"}


def run(argv, folder, env, limit=150):
    try:
        done = subprocess.run(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=limit)
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        return None, (late.stdout or b"").decode(errors="replace") + f"\ndid not end in {limit} s"


@pytest.fixture(scope="module")
def programs(cluster, data, tmp_path_factory):
    """Runs a driver's program once, compiling it first; gives {case: None or what went wrong} and its output."""
    top, built, results = tmp_path_factory.mktemp("drivers"), set(), {}

    def filled(argv, folder):
        build = top / folder
        build.mkdir(exist_ok=True)
        return [part.replace("{build}", str(build)) for part in argv]

    def results_of(driver):
        if driver.name not in results:
            results[driver.name] = None, "could not be built or started: see the first case"
            folder = os.path.basename(driver.folder)
            for what in {folder, driver.name} - built:
                built.add(what)
                for command in BUILD.get(what, []):
                    code, output = run(filled(command, folder), driver.folder, environment(data, ""), 300)
                    assert code == 0 or case != driver.cases[-1], output
            table = "matrix_" + re.sub(r"\W+", "_", driver.name.lower())
            primary = cluster.shards[0].primary
            primary.sql(f"CREATE TABLE {table} (id bigint PRIMARY KEY, who int, body text CHECK (body <> 'refused'))",
                        dbname="plain")
            cluster.sync()
            code, output = run(filled(driver.command, folder), driver.folder, environment(data, table))
            results[driver.name] = code, output
        return results[driver.name]

    yield results_of


@pytest.mark.slow
@pytest.mark.parametrize("driver, case", cases())
def test_driver(programs, driver, case):
    code, output = programs(driver)
    lines = [line for line in output.splitlines() if line in (f"ok {case}",) or line.startswith(f"failed {case}:")]
    assert lines == [f"ok {case}"], output
    assert code == 0 or case != driver.cases[-1], output

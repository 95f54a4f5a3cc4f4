"""Pipelines of real clients: psycopg 3's pipeline mode and pgbench's, with prepared statements, Syncs and errors."""
import subprocess
from contextlib import closing

import psycopg
import pytest
from harness import pg_binary
from support import SYNC, Raw, bind, close, describe, error_of, execute, kinds, parse, rows
from test_prepared_limits import plain_proxy

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def table(proxy):
    proxy.sql("DROP TABLE IF EXISTS piped", dbname="plain")
    proxy.sql("CREATE TABLE piped (id int PRIMARY KEY, value int)", dbname="plain")
    yield proxy
    proxy.sql("DROP TABLE piped", dbname="plain")


def test_psycopg_pipelines(table):
    with closing(psycopg.connect(table.dsn("plain"), autocommit=True, prepare_threshold=2)) as connection:
        with connection.pipeline() as pipeline:
            for number in range(30):
                connection.execute("INSERT INTO piped VALUES (%s, %s)", (number, number * 2))
            pipeline.sync()
            cursors = [connection.execute("SELECT value FROM piped WHERE id = %s", (number,)) for number in range(30)]
        assert [cursor.fetchone()[0] for cursor in cursors] == [number * 2 for number in range(30)]
        with pytest.raises(psycopg.errors.UniqueViolation):
            with connection.pipeline():
                connection.execute("UPDATE piped SET value = 0 WHERE id = %s", (1,))
                connection.execute("INSERT INTO piped VALUES (%s, %s)", (1, 1))
                connection.execute("UPDATE piped SET value = 0 WHERE id = %s", (2,))
        assert connection.execute("SELECT value FROM piped WHERE id IN (1, 2) ORDER BY id").fetchall() == [(2,), (4,)]


def test_psycopg_pipelines_in_transactions(table):
    with closing(psycopg.connect(table.dsn("plain"), prepare_threshold=2)) as connection:
        with connection.pipeline() as pipeline, connection.transaction():
            for number in range(100, 130):
                connection.execute("INSERT INTO piped VALUES (%s, %s)", (number, number))
                if number % 10 == 9:
                    pipeline.sync()
        found = connection.execute("SELECT count(*) FROM piped WHERE id >= 100").fetchone()
        assert found == (30,)


def test_syncs_sent_ahead_of_their_answers(table):
    """Many batches in one packet, each with its Sync: answers in order, an error costs its own batch alone."""
    with Raw(table, database="plain") as raw:
        raw.ask(parse("add", "INSERT INTO piped VALUES ($1::int, $2::int)", (23, 23)), SYNC)
        batches = [bind("", "add", [b"%d" % (200 + number % 8), b"1"]) + execute() + SYNC for number in range(12)]
        raw.send(*batches)
        found = [kinds(raw.until_ready()) for _ in batches]
        assert found == ["2CZ"] * 8 + ["2EZ"] * 4
        raw.send(parse("", "BEGIN"), bind("", ""), execute(), SYNC, *batches[8:10],
                 parse("", "ROLLBACK"), bind("", ""), execute(), SYNC,
                 parse("", "SELECT count(*) FROM piped WHERE id BETWEEN 200 AND 210"), bind("", ""), execute(), SYNC)
        answers = [raw.until_ready() for _ in range(5)]
        assert [answer[-1][1] for answer in answers] == [b"T", b"E", b"E", b"I", b"I"]
        assert error_of(answers[2])["C"] == "25P02"
        assert rows(answers[4]) == [[b"8"]]
        raw.send(close("S", "add"), SYNC, describe("S", "add"), SYNC)
        assert kinds(raw.until_ready()) == "3Z"
        assert error_of(raw.until_ready())["C"] == "26000"


SCRIPT = """\\set id random(1, 50)
\\startpipeline
BEGIN;
UPDATE bench SET value = value + 1 WHERE id = :id;
SELECT value FROM bench WHERE id = :id;
COMMIT;
SELECT :id;
\\endpipeline
"""


@pytest.mark.parametrize("mode", ["extended", "prepared"])
def test_pgbench_pipelines(cluster, tmp_path, mode):
    with plain_proxy(cluster, {"size": 3, "max_prepared_statements": 4}) as proxy:
        proxy.wait_nodes()
        proxy.sql("DROP TABLE IF EXISTS bench", dbname="plain")
        proxy.sql("CREATE TABLE bench AS SELECT g AS id, 0 AS value FROM generate_series(1, 50) g", dbname="plain")
        script = tmp_path / "pipeline.sql"
        script.write_text(SCRIPT)
        found = subprocess.run([pg_binary("pgbench"), "-n", "-M", mode, "-c", "8", "-t", "40", "-f", str(script),
                                proxy.dsn("plain")], capture_output=True, text=True, timeout=120)
        assert found.returncode == 0, found.stderr
        assert "number of failed transactions: 0" in found.stdout, found.stdout
        assert proxy.value("SELECT sum(value) FROM bench", dbname="plain") == 320
        proxy.sql("DROP TABLE bench", dbname="plain")

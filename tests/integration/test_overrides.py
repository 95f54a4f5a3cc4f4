"""Where statements run: what comments, sessions, users, databases and the mode say, the strongest first."""
from contextlib import closing

import psycopg2
import pytest

from harness import Proxy, wait_until
from support import connect_error, explain, fetch, one, refused

pytestmark = pytest.mark.core

ASK = "SELECT pg_is_in_recovery()"
UNPROVEN = "SELECT pg_is_in_recovery() FROM pg_class LIMIT 1"


@pytest.fixture(scope="module")
def many(cluster):
    """Databases of each mode and route, and users of each."""
    shards = [dict(shard, dbname="plain") for shard in cluster.shard_config()[:1]]
    databases = [{"name": name, "shards": shards, **more} for name, more in {
        "aggressive": {}, "conservative": {"read_write_split": "conservative"}, "off": {"read_write_split": False},
        "primary": {"route": "primary"}, "replica": {"route": "replica", "max_lag": "1h"},
        "strict": {"max_lag": "123ms", "region": "eu"}}.items()]
    users = [{"name": "postgres", "admin": True}, {"name": "app", "route": "replica"},
             {"name": "off", "read_write_split": "off"}]
    for name in ("off",):
        cluster.create_role(name)
    with Proxy(cluster, databases=databases, users=users) as proxy:
        proxy.wait_nodes()
        wait_until(lambda: proxy.value(ASK, dbname="aggressive"), 10.0, "reads on the replica")
        yield proxy


def node_class(connection, sql=ASK):
    return explain(connection, sql).split("(", 1)[1].split(";", 1)[0].split(")", 1)[0]


@pytest.mark.parametrize("database, user, plain, asked", [
    ("aggressive", "postgres", "replica: read", "replica: hint: replica"),
    ("conservative", "postgres", "primary: not declared to be a read", "replica: hint: replica"),
    ("off", "postgres", "primary: read_write_split is off", "primary: read_write_split is off"),
    ("primary", "postgres", "primary: session: primary", "replica: hint: replica"),
    ("replica", "postgres", "replica: session: replica", "replica: hint: replica"),
    ("primary", "app", "replica: session: replica", "replica: hint: replica"),
    ("replica", "off", "primary: read_write_split is off", "primary: read_write_split is off"),
])
def test_modes_databases_and_users(many, database, user, plain, asked):
    with closing(many.connect(database, user=user)) as client:
        assert node_class(client) == plain
        assert node_class(client, ASK + " /* pgshunt: replica */") == asked
        assert node_class(client, ASK + " /* pgshunt: primary */") == "primary: hint: primary"


def test_read_only_transactions_are_declared(many):
    for database, wanted in ("aggressive", True), ("conservative", True), ("off", False):
        with closing(many.connect(database)) as client:
            cursor = client.cursor()

            def ask():
                cursor.execute("BEGIN READ ONLY")
                answer = one(client, ASK)
                cursor.execute("COMMIT")
                return answer

            if wanted:
                wait_until(ask, 10.0, "a fresh replica")
            else:
                assert ask() is False


def test_session_settings(many):
    with closing(many.connect("aggressive")) as client:
        cursor = client.cursor()
        assert one(client, "SHOW pgshunt.route") == "auto"
        cursor.execute("SET pgshunt.route = 'primary'")
        assert node_class(client) == "primary: session: primary" and one(client, ASK) is False
        assert node_class(client, ASK + " /* pgshunt: replica */") == "replica: hint: replica"
        cursor.execute("SET pgshunt.route TO replica")
        assert node_class(client, UNPROVEN) == "replica: session: replica"
        wait_until(lambda: one(client, UNPROVEN), 10.0, "a fresh replica")
        assert node_class(client, "SELECT txid_current()") == "primary: function of the primary or the session"
        cursor.execute("RESET pgshunt.route")
        assert one(client, "SHOW pgshunt.route") == "auto" and node_class(client) == "replica: read"


def test_what_counts_is_shown(many):
    with closing(many.connect("strict")) as client:
        cursor = client.cursor()
        assert [one(client, f"SHOW pgshunt.{name}") for name in ("route", "region", "max_lag")] == ["auto", "eu", "123ms"]
        cursor.execute("SET pgshunt.max_lag = '2s'")
        cursor.execute("SET pgshunt.region = ''")
        assert [one(client, f"SHOW pgshunt.{name}") for name in ("route", "region", "max_lag")] == ["auto", "", "2000ms"]


def test_settings_come_with_the_connection(many):
    options = "-c pgshunt.route=primary -c pgshunt.max_lag=5s"
    with closing(many.connect("aggressive", options=options)) as client:
        cursor = client.cursor()
        assert one(client, ASK) is False and one(client, "SHOW pgshunt.max_lag") == "5000ms"
        cursor.execute("SET pgshunt.route = 'auto'")
        assert node_class(client) == "replica: read"
        for back in "RESET pgshunt.route", "RESET ALL", "DISCARD ALL":
            cursor.execute("SET pgshunt.route = 'replica'")
            cursor.execute(back)
            assert one(client, "SHOW pgshunt.route") == "primary"
    assert "invalid value for parameter" in connect_error(many.dsn("aggressive", options="-c pgshunt.route=x"))


@pytest.mark.parametrize("end, then", [("COMMIT", "2s"), ("ROLLBACK", "1s")])
def test_settings_follow_their_transaction(many, end, then):
    milliseconds = {"1s": "1000ms", "2s": "2000ms", "3s": "3000ms", "4s": "4000ms"}
    with closing(many.connect("aggressive")) as client:
        cursor = client.cursor()

        def expect(value):
            assert one(client, "SHOW pgshunt.max_lag") == milliseconds[value]

        cursor.execute("SET pgshunt.max_lag = '1s'")
        cursor.execute("BEGIN")
        cursor.execute("SET pgshunt.max_lag = '2s'")
        cursor.execute("SAVEPOINT a")
        cursor.execute("SET pgshunt.max_lag = '3s'")
        cursor.execute("SET LOCAL pgshunt.max_lag = '4s'")
        expect("4s")
        cursor.execute("ROLLBACK TO a")
        expect("2s")
        assert one(client, "SELECT 1") == 1
        cursor.execute("SET LOCAL pgshunt.max_lag = '4s'")
        expect("4s")
        cursor.execute(end)
        expect(then)


def test_a_failed_transaction_takes_no_settings(many):
    with closing(many.connect("aggressive")) as client:
        cursor = client.cursor()
        cursor.execute("BEGIN")
        with pytest.raises(psycopg2.Error):
            cursor.execute("SELECT 1/0")
        with refused("25P02", hint=False):
            cursor.execute("SET pgshunt.route = 'primary'")
        cursor.execute("ROLLBACK")
        assert one(client, "SHOW pgshunt.route") == "auto"


def test_a_comment_on_begin_holds_for_the_transaction(many):
    with closing(many.connect("aggressive")) as client:
        cursor = client.cursor()
        cursor.execute("BEGIN /* pgshunt: replica, max_lag=1h */")
        assert one(client, "SHOW pgshunt.route") == "replica" and one(client, ASK) is True
        cursor.execute("COMMIT")
        assert one(client, "SHOW pgshunt.route") == "auto"
        cursor.execute("BEGIN READ ONLY /* pgshunt: primary */")
        assert one(client, ASK) is False
        cursor.execute("ROLLBACK")
        with refused("42704", "unrecognized word"):
            cursor.execute("BEGIN /* pgshunt: primry */")
        with refused("22023"):
            cursor.execute("BEGIN /* pgshunt: max_lag=5 */")
        assert one(client, "SELECT 1") == 1


def test_a_transaction_that_reads_by_claim_cannot_write(many):
    """The first statement decides; what writes later is told so by the replica."""
    with closing(many.connect("replica")) as client:
        cursor = client.cursor()
        cursor.execute("BEGIN")
        assert one(client, ASK) is True
        with refused("25006", hint=False):
            cursor.execute("CREATE TABLE never (id int)")
        cursor.execute("ROLLBACK")
        cursor.execute("BEGIN")
        cursor.execute("CREATE TEMP TABLE mine (id int)")
        assert one(client, ASK) is False
        cursor.execute("ROLLBACK")


@pytest.mark.parametrize("comment, sqlstate", [("primry", "42704"), ("max_lag=5", "22023"), ("region", "22023"),
                                               ("primary replica", "22023"), ("replica=yes", "22023")])
def test_a_wrong_comment_is_an_error(many, comment, sqlstate):
    with closing(many.connect("aggressive")) as client, closing(many.connect3("aggressive")) as other:
        with refused(sqlstate):
            fetch(client, f"SELECT 1 /* pgshunt: {comment} */")
        assert one(client, "SELECT 1") == 1
        with refused(sqlstate):
            other.execute(f"SELECT %s::int /* pgshunt: {comment} */", (1,))
        assert other.execute("SELECT 1").fetchone() == (1,)


def test_max_lag_of_a_statement(cluster, many):
    """A replica that stands still serves whom that does not disturb."""
    replica = cluster.shards[0].replicas[0]
    cluster.sync()
    replica.pause_replay()
    try:
        def late():
            cluster.shards[0].primary.sql("SELECT pg_logical_emit_message(false, 'late', 'x')")
            return not many.value(ASK + " /* pgshunt: max_lag=300ms */", dbname="aggressive")

        wait_until(late, 15.0, "a replica that is late")
        assert many.value(ASK + " /* pgshunt: max_lag=1h */", dbname="aggressive") is True
        assert many.value(ASK, dbname="replica") is True
        with closing(many.connect("aggressive")) as client:
            client.cursor().execute("SET pgshunt.max_lag = '1h'")
            assert one(client, ASK) is True
            assert one(client, ASK + " /* pgshunt: max_lag=1ms */") is False
    finally:
        replica.resume_replay()

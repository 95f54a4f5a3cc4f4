"""The admin console: exactly the columns that tools depend on, in their order."""
import re
import urllib.error
import urllib.request
from contextlib import closing

import psycopg2
import pytest

from harness import wait_until
from support import SYNC, Raw, connect_error, kinds, one, parse, query

pytestmark = pytest.mark.core

COLUMNS = {
    "POOLS": "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active "
             "sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode "
             "load_balance_hosts",
    "CLIENTS": "type user database replication state addr port local_addr local_port connect_time request_time wait "
               "wait_us close_needed ptr link remote_pid tls application_name prepared_statements id pin_reason",
    "SERVERS": "type user database replication state addr port local_addr local_port connect_time request_time wait "
               "wait_us close_needed ptr link remote_pid tls application_name prepared_statements id pin_reason",
    "STATS": "database total_server_assignment_count total_xact_count total_query_count total_received total_sent "
             "total_xact_time total_query_time total_wait_time total_client_parse_count total_server_parse_count "
             "total_bind_count total_client_login_count avg_server_assignment_count avg_xact_count avg_query_count "
             "avg_recv avg_sent avg_xact_time avg_query_time avg_wait_time avg_client_parse_count "
             "avg_server_parse_count avg_bind_count avg_client_login_count",
    "DATABASES": "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime "
                 "pool_mode load_balance_hosts max_connections current_connections max_client_connections "
                 "current_client_connections paused disabled",
    "LISTS": "list items",
    "PREPARED_STATEMENTS": "name statement references servers workers",
    "LOOKUPS": "database lookup key unique state cached hits misses stale failed function",
    "CONFIG": "key value default changeable",
    "VERSION": "version",
}

LISTS = ("databases users peers pools peer_pools free_clients used_clients login_clients free_servers used_servers "
         "dns_names dns_zones dns_queries dns_pending")


@pytest.fixture(params=["pgshunt", "pgbouncer"])
def console(proxy, request):
    with closing(proxy.connect(request.param)) as connection:
        yield connection


def show(connection, what):
    cursor = connection.cursor()
    cursor.execute("SHOW " + what)
    return [column.name for column in cursor.description], cursor.fetchall()


@pytest.mark.parametrize("what", COLUMNS)
def test_columns(console, what):
    assert show(console, what)[0] == COLUMNS[what].split()
    assert show(console, what.lower() + ";")[0] == COLUMNS[what].split()


def test_types_of_stats(console):
    """Everything but the database is a number: tools parse it so."""
    cursor = console.cursor()
    cursor.execute("SHOW STATS")
    assert {column.type_code for column in cursor.description[1:]} == {1700}
    for row in cursor.fetchall():
        assert all(value is not None for value in row)


def test_lists(console):
    rows = show(console, "LISTS")[1]
    assert [row[0] for row in rows] == LISTS.split()
    assert all(isinstance(row[1], int) for row in rows)


def test_pools_are_unique(proxy, data, console):
    with closing(data.connect()) as connection:
        one(connection, "SELECT count(*) FROM users")
        rows = [dict(zip(COLUMNS["POOLS"].split(), row)) for row in show(console, "POOLS")[1]]
    keys = [(row["database"], row["user"]) for row in rows]
    assert len(keys) == len(set(keys)) and ("app", "postgres") in keys
    row = rows[keys.index(("app", "postgres"))]
    assert row["pool_mode"] == "transaction" and row["sv_idle"] + row["sv_active"] + row["sv_used"] >= 2


def test_clients_show_who_is_there(data, console):
    with closing(data.connect(application_name="visible")) as connection:
        one(connection, "SELECT 1")
        rows = [dict(zip(COLUMNS["CLIENTS"].split(), row)) for row in show(console, "CLIENTS")[1]]
        mine = [row for row in rows if row["application_name"] == "visible"]
        assert len(mine) == 1
        assert mine[0]["type"] == "C" and mine[0]["user"] == "postgres" and mine[0]["database"] == "app"
        assert mine[0]["state"] in ("active", "idle") and mine[0]["addr"] == "127.0.0.1"


def test_servers(cluster, data, console):
    data.sql("SELECT count(*) FROM users")
    rows = [dict(zip(COLUMNS["SERVERS"].split(), row)) for row in show(console, "SERVERS")[1]]
    ports = {node.port for node in cluster.nodes}
    assert rows and all(row["type"] == "S" and row["port"] in ports and row["remote_pid"] > 0 for row in rows)


def test_stats_count(data, proxy):
    def counters():
        return next(row for row in proxy.show("STATS") if row["database"] == "app")

    before = counters()
    with closing(data.connect()) as connection:
        for _ in range(10):
            one(connection, "SELECT 1")
    after = counters()
    assert after["total_query_count"] - before["total_query_count"] >= 10
    assert after["total_xact_count"] - before["total_xact_count"] >= 10
    assert after["total_received"] > before["total_received"] and after["total_sent"] > before["total_sent"]
    assert after["total_client_login_count"] - before["total_client_login_count"] >= 1


def test_databases(console):
    rows = [dict(zip(COLUMNS["DATABASES"].split(), row)) for row in show(console, "DATABASES")[1]]
    names = [row["name"] for row in rows]
    assert {"app", "plain"} <= set(names)
    keys = [(row["name"], row["host"], row["port"], row["database"], row["force_user"], row["pool_mode"])
            for row in rows]
    assert len(keys) == len(set(keys))


def test_config(console):
    rows = {row[0]: row for row in show(console, "CONFIG")[1]}
    assert rows["pool.size"][1] == "20" and rows["pool.size"][2] == "20" and rows["pool.size"][3] == "yes"
    assert rows["listen.port"][3] == "no"
    for name in ("max_client_conn", "max_user_connections"):
        if name in rows:
            int(rows[name][1])


def test_version(console):
    assert re.search(r"pgshunt \d+\.\d+", show(console, "VERSION")[1][0][0], re.I)


def test_nodes(cluster, proxy, console):
    proxy.wait_nodes()
    columns, rows = show(console, "NODES")
    assert {"shard", "host", "port", "role", "lag_ms", "lag_bytes", "state"} <= set(columns)
    rows = [dict(zip(columns, row)) for row in rows]
    roles = {int(row["port"]): row["role"] for row in rows}
    assert roles == {node.port: "replica" if node in cluster.replicas else "primary" for node in cluster.nodes}
    assert {row["state"] for row in rows} == {"up"}


def test_shards(console):
    columns, rows = show(console, "SHARDS")
    found = [dict(zip(columns, row)) for row in rows]
    assert {"s0", "s1"} <= {str(value) for row in found for value in row.values()}


def test_unknown_command_says_what_there_is(console):
    with pytest.raises(psycopg2.Error) as caught:
        console.cursor().execute("SHOW NONSENSE")
    assert "NODES" in str(caught.value) or caught.value.diag.message_hint
    assert show(console, "VERSION")[1]


def test_empty_query_is_a_ping(proxy):
    with Raw(proxy, database="pgshunt") as raw:
        assert kinds(raw.ask(query(";"))) == "IZ"


def test_drivers_questions_are_answered(proxy):
    with Raw(proxy, database="pgshunt", extra_float_digits="2") as raw:
        for name in ("client_encoding", "default_transaction_isolation", "standard_conforming_strings", "datestyle",
                     "timezone"):
            assert kinds(raw.ask(query("SHOW " + name))) == "TDCZ", name


def test_psql_on_the_console(proxy):
    out = proxy.psql("-At", "-c", "SHOW VERSION", dbname="pgshunt").stdout
    assert "pgshunt" in out.lower()


def test_console_needs_an_admin(proxy):
    assert connect_error(proxy.dsn("pgshunt", user="app"))


def test_reload_command(proxy, console):
    console.cursor().execute("RELOAD")
    assert proxy.value("SELECT 1") == 1


# ---- HTTP ----

def get(proxy, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http_port}{path}", timeout=10) as answer:
        return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()


def test_healthz(proxy):
    assert get(proxy, "/healthz")[0] == 200


def test_metrics(data):
    data.sql("SELECT count(*) FROM users")
    status, kind, text = get(data, "/metrics")
    assert status == 200 and kind.startswith("text/plain")
    names = set()
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.match(r"# (HELP|TYPE) pgshunt_\w+ .+", line), line
        else:
            assert re.match(r'[a-z_]+(_total)?(\{(\w+="([^"\\]|\\.)*",?)*\})? [-+]?([0-9.eE+-]+|Inf|NaN)$', line), line
            names.add(re.match(r"\w+", line).group())
    typed = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    assert typed and all(any(name == base or name.startswith(base + "_") for base in typed) for name in names)
    assert len(re.findall(r"^# TYPE (\w+)", text, re.M)) == len(typed), "one TYPE line for each metric"
    assert any("lag" in name for name in names) and any("client" in name for name in names)
    samples = [line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert len(samples) == len(set(samples)), "each sample once"


def test_unknown_page(proxy):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(proxy, "/nothing/here")
    assert caught.value.code == 404


def test_http_does_not_take_everything(proxy):
    request = urllib.request.Request(f"http://127.0.0.1:{proxy.http_port}/metrics", data=b"x" * 100, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code in (404, 405)


def test_prepared_statements(proxy):
    """By content: one row for the same text of two clients; long texts are cut, and there are a thousand at most."""
    def found(text):
        return [row for row in proxy.show("PREPARED_STATEMENTS") if row["statement"].startswith(text)]

    with Raw(proxy, database="plain") as first, Raw(proxy, database="plain") as second:
        for raw, name in ((first, "mine"), (second, "yours")):
            raw.ask(parse(name, "SELECT 'content', $1::int") + SYNC)
        row, = found("SELECT 'content'")
        assert row["references"] == 2 and 1 <= row["servers"] <= 2 and row["workers"] in (1, 2)
        assert re.fullmatch(r"pgshunt_[0-9a-f]+", row["name"])
        long = "SELECT 'long', '" + "\u00e9" * 3000 + "'"
        first.ask(parse("long", long) + SYNC)
        row, = found("SELECT 'long'")
        assert row["statement"].endswith("\u00e9...") and len(row["statement"].encode()) <= 1003
        first.ask(b"".join(parse(f"s{number}", f"SELECT {number}") for number in range(1100)) + SYNC)
        assert len(proxy.show("PREPARED_STATEMENTS")) == 1000
    wait_until(lambda: not any(row["references"] for row in found("SELECT 'content'")), 10.0, "nobody using it")

"""Postgres' own programs, pgcli and monitoring tools through the proxy, in transaction mode."""
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from harness import pg_binary, wait_until
from harness.proxy import REPO
from harness.cluster import tool_environment
from harness.process import free_port

from drivers_support import PASSWORD

pytestmark = pytest.mark.slow

# One of a few hundred groups of objects; most kinds of statement that a real schema has.
SCHEMA_PART = """
CREATE SCHEMA part_{n};
CREATE TYPE part_{n}.mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE DOMAIN part_{n}.positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE part_{n}.counter START {n};
CREATE TABLE part_{n}.parent (id int PRIMARY KEY DEFAULT nextval('part_{n}.counter'), mood part_{n}.mood,
    amount part_{n}.positive, doc jsonb DEFAULT '{{"a": [1, "$1", "?"]}}', UNIQUE (mood, amount));
CREATE TABLE part_{n}.child (id bigint GENERATED ALWAYS AS IDENTITY, parent_id int REFERENCES part_{n}.parent,
    note text COLLATE "C", at timestamptz DEFAULT '2026-01-01 00:00+00', CHECK (note <> ';'));
CREATE INDEX child_note ON part_{n}.child (lower(note)) WHERE note IS NOT NULL;
CREATE TABLE part_{n}.log (at date, what text) PARTITION BY RANGE (at);
CREATE TABLE part_{n}.log_2026 PARTITION OF part_{n}.log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE VIEW part_{n}.seen AS SELECT p.id, count(c.*) AS children FROM part_{n}.parent p
    LEFT JOIN part_{n}.child c ON c.parent_id = p.id GROUP BY p.id;
CREATE FUNCTION part_{n}.touch() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    NEW.note := coalesce(NEW.note, 'touched; ''quoted'''); -- a comment; with a semicolon
    RETURN NEW;
END $body$;
CREATE TRIGGER touch BEFORE INSERT ON part_{n}.child FOR EACH ROW EXECUTE FUNCTION part_{n}.touch();
COMMENT ON TABLE part_{n}.parent IS 'number {n}: "quoted" -- and $$dollars$$';
GRANT SELECT ON part_{n}.parent TO app;
INSERT INTO part_{n}.parent (mood, amount) SELECT 'happy', g FROM generate_series(1, 5) AS g;
INSERT INTO part_{n}.child (parent_id) SELECT id FROM part_{n}.parent;
INSERT INTO part_{n}.log VALUES ('2026-05-05', E'tab\\there');
"""
PARTS = 150
SOME = "part_?"


def environment():
    return {**tool_environment(), "PGPASSWORD": PASSWORD}


def tool(name, *args, check=True, input=None, limit=200):
    program = name if "/" in name else pg_binary(name)
    done = subprocess.run([program, *args], input=input, stdin=subprocess.DEVNULL if input is None else None, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), timeout=limit)
    if check:
        assert done.returncode == 0, f"{name} {args}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done


def options(proxy):
    """Where to connect, for programs that take no connection string; the password is in the environment."""
    return ["-h", proxy.host, "-p", str(proxy.port), "-U", "postgres", "-d", "plain"]


def psql(proxy, *args, database="plain", input=None, check=True):
    return tool("psql", "-X", "-v", "ON_ERROR_STOP=1", "-d", proxy.dsn(database), *args, input=input, check=check).stdout


@pytest.fixture(scope="module")
def restored(cluster, proxy):
    """A second, empty database behind the same proxy."""
    cluster.create_database("restored")
    shard = dict(cluster.shard_config()[0], dbname="restored")
    proxy.change({"databases": [*proxy.config["databases"], {"name": "restored", "shards": [shard]}]})
    assert any("reload" in line for line in proxy.reload())
    wait_until(lambda: proxy.psql("-c", "SELECT 1", dbname="restored", check=False).returncode == 0, 20,
               "the new database served")
    return "restored"


@pytest.fixture(scope="module")
def schema(cluster, proxy, tmp_path_factory):
    """The large schema, loaded by psql -f through the proxy."""
    path = tmp_path_factory.mktemp("schema") / "schema.sql"
    path.write_text("".join(SCHEMA_PART.format(n=n) for n in range(1, PARTS + 1)))
    psql(proxy, "-q", "-f", str(path))
    yield path
    with cluster.shards[0].primary.connect("plain") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace WHERE nspname ~ '^part_'")
        for statement, in cursor.fetchall():
            cursor.execute(statement)
    cluster.sync()


def contents(cluster, database, pattern="part_*"):
    """What pg_dump says of a database, asked of the server itself."""
    node = cluster.shards[0].primary
    text = tool("pg_dump", "-d", node.dsn(database), f"--schema={pattern}").stdout
    return [line for line in text.splitlines() if not line.startswith(("--", "\\restrict", "\\unrestrict"))]


# ---- psql ----

def test_psql_large_schema(cluster, schema):
    node = cluster.shards[0].primary
    assert node.value("SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text ~ '^part_' AND relkind = 'r'",
                      dbname="plain") == 3 * PARTS
    assert node.value("SELECT note FROM part_7.child LIMIT 1", dbname="plain") == "touched; 'quoted'"


def test_psql_single_transaction_and_stop(proxy, tmp_path):
    script = tmp_path / "broken.sql"
    script.write_text("CREATE TABLE never (id int);\nINSERT INTO never VALUES (1);\nSELECT 1 / 0;\nSELECT 'not reached';\n")
    done = tool("psql", "-X", "-v", "ON_ERROR_STOP=1", "-1", "-d", proxy.dsn("plain"), "-f", str(script), check=False)
    assert done.returncode == 3 and "broken.sql:3: ERROR:  division by zero" in done.stderr
    assert psql(proxy, "-Atc", "SELECT to_regclass('never') IS NULL") == "t\n"


def test_psql_describes(proxy, schema):
    out = psql(proxy, "-c", r"\d part_3.child", "-c", r"\df part_3.*", "-c", r"\dt+ part_3.*", "-c", r"\dn part_3",
               "-c", r"\dT+ part_3.*", "-c", r"\d+ part_3.log", "-c", r"\sf part_3.touch", "-c", r"\dp part_3.parent",
               "-c", r"\du", "-c", r"\l", "-c", r"\conninfo", "-c", r"\dconfig work_mem", "-c", r"\encoding")
    for wanted in ("child_note", "Triggers:", "touch", "log_2026", "number 3:", "app=r", "mood", "UTF8", "4MB"):
        assert wanted in out, wanted


def test_psql_variables_and_generated_statements(proxy):
    out = psql(proxy, "-At", input=r"""
        SELECT 41 + 1 AS answer \gset
        \echo the answer is :answer
        SELECT format('SELECT %s * 2', n) FROM generate_series(1, 3) AS n \gexec
        SELECT 1 AS one, 'x'::text AS two \gdesc
        SELECT 'a' AS r, 'b' AS c, 5 AS v \crosstabview
        \set AUTOCOMMIT off
        CREATE TABLE rolled_back (id int);
        \echo :ROW_COUNT
        ROLLBACK;
        \set AUTOCOMMIT on
        SELECT to_regclass('rolled_back') IS NULL;
        \set FETCH_COUNT 10
        SELECT sum(n) FROM (SELECT n FROM generate_series(1, 100) AS n) AS all_of_them;
        SELECT n FROM generate_series(1, 25) AS n;
        \set ON_ERROR_STOP off
        \set ON_ERROR_ROLLBACK on
        BEGIN; SELECT 1 / 0; SELECT 'goes on'; COMMIT;
        \errverbose
        """)
    lines = out.split("\n")
    for wanted in ("the answer is 42", "2", "4", "6", "one|integer", "two|text", "t", "5050", "25", "goes on"):
        assert wanted in lines, (wanted, out)


def test_psql_copy(proxy, tmp_path):
    table, out = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text("".join(f'{n},"line ""{n}"""\n' for n in range(5000)))
    psql(proxy, "-c", "CREATE TABLE copied (id int, body text)")
    try:
        psql(proxy, "-c", rf"\copy copied from '{table}' csv", "-c", rf"\copy (SELECT * FROM copied ORDER BY id) to "
             rf"'{out}' csv force quote body")
        assert out.read_text() == table.read_text()
        assert psql(proxy, "-Atc", "COPY (SELECT count(*) FROM copied) TO STDOUT") == "5000\n"
        done = tool("psql", "-X", "-d", proxy.dsn("plain"), "-c", r"\copy copied from program 'echo broken' csv", check=False)
        assert done.returncode == 1 and "22P02" not in done.stdout and "invalid input syntax" in done.stderr
    finally:
        psql(proxy, "-c", "DROP TABLE copied")


def test_psql_watch(proxy):
    """\\watch runs on until psql is interrupted."""
    process = subprocess.Popen([pg_binary("psql"), "-X", "-At", "-d", proxy.dsn("plain")], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=tool_environment())
    process.stdin.write("SELECT 'watched' \\watch 0.05\n")
    process.stdin.flush()
    seen = 0
    for line in process.stdout:
        seen += line == "watched\n"
        if seen == 3:
            process.send_signal(signal.SIGINT)
            break
    process.communicate(timeout=20)
    assert seen == 3


def test_psql_interrupt(cluster, proxy):
    """Ctrl-C sends a cancel request."""
    process = subprocess.Popen([pg_binary("psql"), "-X", "-At", "-d", proxy.dsn("plain"), "-c", "SELECT pg_sleep(60)"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=tool_environment())
    running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
    wait_until(lambda: any(node.value(running) for node in cluster.shards[0].nodes), 20, "the statement running")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1 and "canceling statement due to user request" in errors


def test_psql_sharded(data):
    out = psql(data, "-At", "-c", "SELECT count(*) FROM users", "-c", "SELECT name FROM users WHERE id = 7", "-c",
               "COPY (SELECT code FROM countries ORDER BY code) TO STDOUT", "-c", r"\dt users", database="app")
    assert out.splitlines()[:6] == ["200", "user 0007", "at", "de", "fr", "jp"] and "public|users|table" in out


# ---- dump and restore ----

def test_pg_dump_and_psql(cluster, proxy, schema, restored):
    dump = tool("pg_dump", "-d", proxy.dsn("plain"), "--schema=part_*").stdout
    assert "CREATE TRIGGER touch" in dump
    psql(proxy, "-q", "-1", input=dump, database=restored)
    assert contents(cluster, "restored") == contents(cluster, "plain")
    forget(cluster, "restored")


@pytest.mark.parametrize("form, jobs", [("custom", 1), ("custom", 2), ("directory", 1), ("directory", 2)])
def test_pg_dump_and_pg_restore(cluster, proxy, schema, restored, tmp_path, form, jobs):
    path = str(tmp_path / "dump")
    parallel = ["-j", str(jobs)] if form == "directory" else []
    tool("pg_dump", "-d", proxy.dsn("plain"), f"--schema={SOME}", f"--format={form}", "-f", path, *parallel)
    tool("pg_restore", "-d", proxy.dsn(restored), "-j", str(jobs), "--exit-on-error", path)
    assert contents(cluster, "restored") == contents(cluster, "plain", SOME)
    forget(cluster, "restored")


def test_pg_restore_data_only_in_one_transaction(cluster, proxy, schema, restored, tmp_path):
    path = str(tmp_path / "dump")
    tool("pg_dump", "-d", proxy.dsn("plain"), f"--schema={SOME}", "--format=custom", "-f", path)
    tool("pg_restore", "-d", proxy.dsn(restored), "--schema-only", "--single-transaction", path)
    tool("pg_restore", "-d", proxy.dsn(restored), "--data-only", "--disable-triggers", "--single-transaction", path)
    assert contents(cluster, "restored") == contents(cluster, "plain", SOME)
    forget(cluster, "restored")


def forget(cluster, database):
    node = cluster.shards[0].primary
    for statement, in node.sql("SELECT format('DROP SCHEMA %I CASCADE', nspname) FROM pg_namespace "
                               "WHERE nspname ~ '^part_'", dbname=database):
        node.sql(statement, dbname=database)
    cluster.sync()


# ---- maintenance, pgbench ----

def test_pg_isready(proxy):
    done = tool("pg_isready", "-h", proxy.host, "-p", str(proxy.port), "-d", "plain")
    assert "accepting connections" in done.stdout
    assert tool("pg_isready", "-h", proxy.host, "-p", str(free_port()), check=False).returncode == 2


@pytest.mark.parametrize("name, args", [
    ("vacuumdb", ["--analyze", "-j", "2", "--schema=part_1"]), ("vacuumdb", ["--analyze-in-stages", "-t", "part_2.parent"]),
    ("vacuumdb", ["--full", "-t", "part_2.child"]),
    ("reindexdb", ["-S", "part_1", "-j", "2"]), ("reindexdb", ["--concurrently", "-t", "part_2.child"]),
    ("clusterdb", ["-t", "part_2.parent"])], ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_maintenance(proxy, schema, name, args):
    if name == "clusterdb":
        psql(proxy, "-c", "ALTER TABLE part_2.parent CLUSTER ON parent_pkey")
    if name == "vacuumdb" and "--schema=part_1" in args:
        args = ["--analyze", "-j", "2", "-t", "part_1.parent", "-t", "part_1.child"]
    tool(name, "-d", proxy.dsn("plain"), *args)


@pytest.fixture(scope="module")
def bench(cluster, proxy):
    tool("pgbench", "-i", "-q", "-s", "1", proxy.dsn("plain"))
    cluster.sync()
    yield proxy
    psql(proxy, "-q", "-c", "DROP TABLE pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history")


PIPELINE = r"""
\set aid random(1, 100000)
\startpipeline
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
COMMIT;
SELECT 1;
\endpipeline
"""


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench(bench, mode):
    """More clients than the pool has servers."""
    out = tool("pgbench", "-n", "-M", mode, "-c", "20", "-j", "2", "-t", "20", bench.dsn("plain")).stdout
    assert "processed: 400/400" in out


def test_pgbench_connects_each_time(bench):
    out = tool("pgbench", "-n", "-C", "-S", "-c", "4", "-t", "25", bench.dsn("plain")).stdout
    assert "processed: 100/100" in out and "average connection time" in out


@pytest.mark.parametrize("mode", ["extended", "prepared"])
def test_pgbench_pipeline(bench, tmp_path, mode):
    script = tmp_path / "pipeline.sql"
    script.write_text(PIPELINE)
    out = tool("pgbench", "-n", "-M", mode, "-f", str(script), "-c", "10", "-j", "2", "-t", "30", bench.dsn("plain")).stdout
    assert "processed: 300/300" in out


# ---- others' tools ----

def test_pgcli(proxy, schema):
    done = tool("/usr/bin/pgcli", *options(proxy), "--less-chatty", "--pgclirc", "/dev/null",
                input="SELECT 6 * 7 AS answer;\n\\dt part_3.*\n\\d part_3.child\nSELECT * FROM missing_table;\n\\q\n", check=False)
    out = done.stdout
    for wanted in ("| 42 ", "log_2026", "child_note", 'relation "missing_table" does not exist'):
        assert wanted in out, out + done.stderr


def test_promtool(bench):
    """Every metric has a name, a type and help as Prometheus wants them."""
    with urllib.request.urlopen(f"http://{bench.host}:{bench.http_port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    assert text.count("\n# TYPE ") > 20
    done = tool("/usr/bin/promtool", "check", "metrics", input=text)
    assert not done.stdout.strip() and not done.stderr.strip(), done.stdout + done.stderr


RULES = os.path.join(REPO, "etc", "prometheus-alerts.yml")
NODE = 'database="app",shard="s0",node="10.0.0.1:5432",region=""'
# alert -> samples under which it is raised; with those of HEALTHY it is not
HEALTHY = {f"pgshunt_shard_has_primary{{database='app',shard='s0'}}": "1x80", f"pgshunt_node_up{{{NODE}}}": "1x80",
           f"pgshunt_node_breaker{{{NODE}}}": "0x80", f"pgshunt_node_fenced{{{NODE}}}": "0x80",
           f"pgshunt_node_lag_seconds{{{NODE}}}": "0.2x80", f"pgshunt_node_role{{role='replica',{NODE}}}": "1x80",
           "pgshunt_reads_total{database='app',role='primary'}": "0+10x80",
           "pgshunt_reads_total{database='app',role='replica'}": "0+990x80",
           "pgshunt_misrouted_total{database='app'}": "3x80",
           f"pgshunt_pool_longest_wait_seconds{{user='u',{NODE}}}": "0x80",
           "pgshunt_config_last_reload_successful": "1x80",
           "pgshunt_tls_certificate_expiry_seconds{side='client',file='a.crt'}": "9000000x80",
           "pgshunt_partition_covered_seconds{database='app',table='t'}": "90000x80",
           "pgshunt_partition_last_success_seconds{database='app'}": "0x80",
           "pgshunt_partition_default_rows{database='app',table='t'}": "0x80"}
ILL = {"PgshuntNoPrimary": {0: "0x80"}, "PgshuntNodeDown": {1: "0x80"}, "PgshuntBreakerOpen": {2: "0.5x80"},
       "PgshuntSecondWritableNode": {3: "1x80"}, "PgshuntReplicaLags": {4: "11x80"},
       "PgshuntReplicaLagUnknown": {4: "_x80"}, "PgshuntReadsOnPrimary": {6: "0+1000x80"},
       "PgshuntMisroutedStatements": {8: "3+1x80"}, "PgshuntClientsWait": {9: "2x80"},
       "PgshuntReloadFailed": {10: "0x80"}, "PgshuntCertificateExpires": {11: "100000x80"},
       "PgshuntNoPartitionForTomorrow": {12: "80000x80"}, "PgshuntPartitionsNotMaintained": {13: "-30000x80"},
       "PgshuntRowsInDefaultPartition": {14: "1x80"}}


def alert_case(name, changes):
    """That of all alerts this one alone is raised, an hour and a quarter after the samples have changed."""
    series = [{"series": series, "values": changes.get(number, values)}
              for number, (series, values) in enumerate(HEALTHY.items())]
    raised = [f"ALERTS{{alertname='{name}',alertstate='firing'}}"] if name else []
    expr = "count by (alertname, alertstate) (ALERTS{alertstate='firing'})"
    return {"interval": "1m", "input_series": series,
            "promql_expr_test": [{"expr": expr, "eval_time": "75m", "exp_samples": [
                {"labels": one.removeprefix("ALERTS"), "value": 1} for one in raised]}]}


def test_alert_rules(bench, tmp_path):
    """The rules that are installed: Prometheus takes them, each is raised by what it is for and by nothing else, and they
    name metrics that there are."""
    tool("/usr/bin/promtool", "check", "rules", RULES)
    with open(RULES) as file:
        text = file.read()
    assert set(re.findall(r"alert: (\w+)", text)) == set(ILL)
    with urllib.request.urlopen(f"http://{bench.host}:{bench.http_port}/metrics", timeout=20) as answer:
        known = set(re.findall(r"^# TYPE (\w+)", answer.read().decode(), re.M))
    unknown = set(re.findall(r"pgshunt_\w+", text)) - known
    assert unknown == {"pgshunt_tls_certificate_expiry_seconds"}  # the proxy here has no certificate
    cases = tmp_path / "cases.json"  # JSON is YAML
    cases.write_text(json.dumps({"rule_files": [RULES], "evaluation_interval": "1m", "tests": [
        alert_case(name, changes) for name, changes in [("", {}), *ILL.items()]]}))
    tool("/usr/bin/promtool", "test", "rules", str(cases))


EXPORTER = """
import sys
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_pgbouncer_exporter.collectors import ListsCollector, PoolsCollector
from prometheus_pgbouncer_exporter.utils import get_connection
connection = get_connection("postgres", int(sys.argv[2]), sys.argv[1])
registry = CollectorRegistry()
registry.register(ListsCollector(connection=connection))
registry.register(PoolsCollector(connection=connection, databases=None))
print(generate_latest(registry).decode())
"""


def test_pgbouncer_exporter(bench):
    """
    Debian's exporter finds pools and lists on the console. Its other columns have names that PgBouncer itself gave
    up (`total_requests` in 1.8, `reserve_pool` in 1.24), so it fails with a current PgBouncer, too.
    """
    done = subprocess.run([sys.executable, "-c", EXPORTER, bench.host, str(bench.port)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                          env=environment())
    assert done.returncode == 0, done.stdout
    for wanted in (r'pgbouncer_active_clients{database="plain",user="postgres"} \d',
                   r"pgbouncer_databases [1-9]"):
        assert re.search("^" + wanted, done.stdout, re.M), done.stdout

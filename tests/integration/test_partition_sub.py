"""Partitions that are divided again, by hash, by list or by time: made, filled, shown, taken over and taken away as a whole."""
import json
import os
import signal
import threading

import psycopg2
import pytest

from ctl_support import ctl
from harness import wait_until
from partition_kills import needs_failpoints
from partition_support import SHAPE, alike, cluster, kind, names, partition, proxy, run

TABLES = ("events", "visits", "busy", "killed")
REFERENCE = ["rates"]


def parts(node, table):
    """What each partition of the table is divided into."""
    node_names = {}
    for name in names(node, table):
        node_names[name] = [leaf for leaf, in node.sql("SELECT relid::regclass::text FROM pg_partition_tree(%s) WHERE isleaf AND relid <> %s::regclass"
                                                       " ORDER BY 1", (f"public.{name}", f"public.{name}"), dbname="app")]
    return node_names


def tree(node, table):
    return node.sql("SET TimeZone = 'UTC'; SELECT relid::regclass::text, pg_get_expr(relpartbound, oid) FROM pg_partition_tree(%s) JOIN pg_class"
                    " ON oid = relid ORDER BY 1", (table,), dbname="app")


def test_by_hash_with_all_that_belongs_to_a_table(cluster, proxy, run):
    cluster.create_role("keeper")
    cluster.create_role("reader")
    run("CREATE TABLE rates (id bigint PRIMARY KEY)")
    run("CREATE TABLE events (user_id bigint NOT NULL, number bigserial, at timestamptz NOT NULL DEFAULT now(), rate bigint REFERENCES rates,"
        " body text CHECK (body <> ''), CONSTRAINT events_key PRIMARY KEY (user_id, at, number))")
    run("CREATE INDEX events_body ON events (lower(body))")
    for node in cluster.primaries:
        node.sql("""CREATE TABLE told (what text);
                    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO told VALUES (TG_OP); RETURN NULL; END';
                    CREATE TRIGGER events_told AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION tell();
                    GRANT SELECT ON events TO reader; GRANT INSERT ON told TO PUBLIC; ALTER TABLE events REPLICA IDENTITY USING INDEX events_key;
                    ALTER TABLE events OWNER TO keeper""", dbname="app")
    before = [node.sql(SHAPE, {"t": "events"}, dbname="app") for node in cluster.primaries]
    create = ("create", "events", "--by", "at", "--every", "1month", "--ahead", "2", "--keep", "2months", "--on-expiry", "drop", "--now", "2026-01-10")
    partition(proxy, *create, "--sub", "hash:user_id:3")
    assert [node.sql(SHAPE, {"t": "events"}, dbname="app") for node in cluster.primaries] == before
    run("INSERT INTO rates VALUES (1)")
    run("INSERT INTO events (user_id, at, rate, body) SELECT g, date '2026-01-01' + (g % 80)::int, 1, 'x' FROM generate_series(1, 400) g")
    for node in cluster.primaries:
        assert parts(node, "events") == {f"events_p20260{m}01": [f"events_p20260{m}01_h{i}" for i in range(3)] for m in (1, 2, 3)}
        assert node.sql("SELECT DISTINCT relreplident::text, pg_get_userbyid(relowner), relacl::text LIKE '%%reader=r%%' FROM pg_class"
                        " WHERE oid IN (SELECT relid FROM pg_partition_tree('events'))", (), dbname="app") == [("i", "keeper", True)]
        assert node.value("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid IN (SELECT relid FROM pg_partition_tree('events')"
                          " WHERE isleaf)", dbname="app") == 9
        assert node.value("SELECT count(*) FROM told", dbname="app") == node.value("SELECT count(*) FROM events", dbname="app") > 0
        node.sql("ANALYZE events", dbname="app")
    alike(cluster, "events")
    shown = partition(proxy, "show", "events", "--now", "2026-01-10", "--json").json["tables"][0]
    assert shown["sub"] == "hash:user_id:3" and [part["parts"] for part in shown["partitions"]] == [3, 3, 3]
    assert sum(part["rows"] for part in shown["partitions"]) == 400
    size = sum(node.value("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('events')", dbname="app") for node in cluster.primaries)
    assert sum(part["bytes"] for part in shown["partitions"]) == shown["bytes"] == size
    listed = next(t for t in partition(proxy, "list", "--now", "2026-01-10", "--json").json["tables"] if t["table"] == "public.events")
    assert 0 < listed["bytes"] <= size
    assert "each partition is divided by hash:user_id:3" in partition(proxy, "show", "events", "--now", "2026-01-10").out
    partition(proxy, "check", "events", "--now", "2026-01-10")
    # A run makes and takes away whole trees, each of them once.
    partition(proxy, "maintain", "events", "--now", "2026-04-10")
    for node in cluster.primaries:
        assert list(parts(node, "events")) == [f"events_p20260{m}01" for m in (2, 3, 4, 5, 6)] and {len(p) for p in parts(node, "events").values()} == {3}
        assert node.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'events\\_p202601%%' AND relkind IN ('r', 'p')", (), dbname="app") == 0
    assert partition(proxy, "maintain", "events", "--now", "2026-04-10", "--json").texts("done") == []
    # A part that is missing is found.
    cluster.primaries[1].sql("DROP TABLE events_p20260401_h1", dbname="app")
    ran = partition(proxy, "check", "events", "--now", "2026-04-10", code=5)
    assert "s1: public.events: 1 partitions want for some of the parts they are divided into" in ran.out and "s0:" not in ran.out
    # What is to come is divided otherwise, or not at all; what is there stays.
    partition(proxy, "alter", "events", "--sub", "hash:number:2", "--now", "2026-05-10")
    partition(proxy, "alter", "events", "--sub", "none", "--now", "2026-06-10")
    assert [len(p) for p in list(parts(cluster.primaries[0], "events").values())[-2:]] == [2, 0]
    # A plain table of it, with every row.
    count = run("SELECT count(*), sum(number) FROM events")
    partition(proxy, "undo", "events")
    assert [kind(node, "events") for node in cluster.primaries] == ["r", "r"] and run("SELECT count(*), sum(number) FROM events") == count
    assert cluster.primaries[0].value("SELECT count(*) FROM pg_class WHERE relname LIKE 'events\\_p%%' AND relkind IN ('r', 'p')", (), dbname="app") == 0


LIST = "list:country:de,'at',us+ca,\"a,b\"\"c\",\"d\\e\",null:default"


def test_by_list_and_what_becomes_of_old_trees(cluster, proxy, run, tmp_path):
    run("CREATE TABLE visits (user_id bigint NOT NULL, at date NOT NULL, country text)")
    tmp_path.chmod(0o777)
    partition(proxy, "create", "visits", "--by", "at", "--every", "1month", "--ahead", "1", "--keep", "1month", "--on-expiry", "archive:attic",
              "--sub", LIST, "--now", "2026-01-10")
    node = cluster.primaries[0]
    bounds = dict(node.sql("SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname LIKE 'visits\\_p20260101\\__%%'", (), dbname="app"))
    assert sorted(bounds.values()) == sorted(["FOR VALUES IN ('de')", "FOR VALUES IN ('''at''')", "FOR VALUES IN ('us', 'ca')", "FOR VALUES IN ('a,b\"c')",
                                              "FOR VALUES IN ('d\\e')", "FOR VALUES IN (NULL)", "DEFAULT"])
    values = ["de", "'at'", "us", "ca", 'a,b"c', "d\\e", None, "elsewhere"]
    for number, value in enumerate(values):
        run("INSERT INTO visits SELECT g, '2026-01-05', %s FROM generate_series(1, 10) g", value)
    # It is shown as it was said, and is read back: a run makes the same.
    partition(proxy, "maintain", "visits", "--now", "2026-03-10")
    for each in cluster.primaries:
        assert names(each, "visits") == [f"visits_p20260{m}01" for m in (2, 3, 4)] and {len(p) for p in parts(each, "visits").values()} == {7}
        assert each.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'attic'::regnamespace AND relkind IN ('r', 'p')", dbname="app") == 8
        assert each.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'visits\\_p202601%%' AND relnamespace = 'public'::regnamespace",
                          (), dbname="app") == 0
    assert sum(each.value("SELECT count(*) FROM attic.visits_p20260101", dbname="app") for each in cluster.primaries) == 80
    # Exported as one file, and dropped as a whole.
    run("INSERT INTO visits SELECT g, '2026-02-05', CASE g % 2 WHEN 0 THEN 'de' ELSE 'nowhere' END FROM generate_series(1, 50) g")
    partition(proxy, "alter", "visits", "--on-expiry", f"export:{tmp_path}", "--now", "2026-03-10")
    partition(proxy, "maintain", "visits", "--now", "2026-04-10")
    rows = 0
    for shard, each in zip(("s0", "s1"), cluster.primaries):
        with open(os.path.join(tmp_path, shard, "public.visits_p20260201.json"), encoding="utf-8") as manifest:
            rows += json.load(manifest)["rows"]
        assert each.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'visits\\_p202602%%'", (), dbname="app") == 0
    assert rows == 50
    # Detached: its parts stay with it.
    partition(proxy, "alter", "visits", "--on-expiry", "detach", "--now", "2026-04-10")
    partition(proxy, "expire", "visits", "--before", "2026-04-01", "--now", "2026-04-15")
    assert len([1 for name, _ in tree(node, "visits_p20260301")]) == 8 and names(node, "visits")[0] == "visits_p20260401"
    partition(proxy, "drop-policy", "visits")


# Months of Berlin by its days, days by hours where clocks change, months by weeks that are cut, years of plain dates by months, ids.
RANGES = [
    ("timestamptz", "1month", "1day", ("--timezone", "Europe/Berlin", "--now", "2026-03-10"), [31, 30],
     ("2026-02-28 23:00:00+00", "2026-04-30 22:00:00+00"), "_p20260301_p20260329"),
    ("timestamptz", "1day", "6hours", ("--timezone", "Europe/Berlin", "--now", "2026-03-28 12:00"), [4, 4],
     ("2026-03-27 23:00:00+00", "2026-03-29 22:00:00+00"), None),
    ("timestamptz", "1day", "1hour", ("--timezone", "Europe/Berlin", "--now", "2026-03-29 12:00"), [23, 24],
     ("2026-03-28 23:00:00+00", "2026-03-30 22:00:00+00"), None),
    ("timestamptz", "1day", "1hour", ("--timezone", "Europe/Berlin", "--now", "2026-10-24 12:00"), [24, 25],
     ("2026-10-23 22:00:00+00", "2026-10-25 23:00:00+00"), None),
    ("date", "1month", "1week", ("--now", "2026-01-10"), [5, 5], ("2026-01-01", "2026-03-01"), "_p20260101_p20251229"),
    ("date", "1year", "1month", ("--now", "2027-02-10"), [12, 12], ("2027-01-01", "2029-01-01"), "_p20280101_p20280201"),
    ("bigint", "1000", "250", (), [4, 4], ("0", "2000"), "_p1000_p1250"),
    ("bigint", "1week", "1day", ("--key", "seconds", "--now", "2026-01-10"), [7, 7], ("1767571200", "1768780800"), "_p20260105_p20260106"),
]


@pytest.mark.parametrize("number", range(len(RANGES)))
def test_time_below_time(cluster, proxy, run, number):
    column, every, sub, args, counts, (first, last), name = RANGES[number]
    node, table = cluster.primaries[0], f"ranged_{number}"
    run(f"CREATE TABLE {table} (at {column} NOT NULL)")
    partition(proxy, "create", table, "--by", "at", "--every", every, "--ahead", "1", "--sub", f"range:{sub}", *args)
    found = parts(node, table)
    order = sorted(names(node, table), key=lambda n: (len(n), n))
    assert [len(found[each]) for each in order] == counts
    assert name is None or any(leaf == table + name for leaves in found.values() for leaf in leaves)
    # The parts of each cover it, each of them once.
    at = first
    for each in order:
        bounds = [tuple(bound.split("'")[1::2]) for _, bound in tree(node, each) if bound]
        whole = dict(tree(node, table))[each].split("'")[1::2]
        pieces = sorted((b for b in bounds if list(b) != whole or len(bounds) == 1), key=lambda b: (len(b[0]), b[0]))
        for low, high in pieces:
            assert low == at
            at = high
        assert at == whole[1]
    assert at == last
    partition(proxy, "check", table, *(args[2:] if args[:1] == ("--key",) else args[args.index("--now"):] if "--now" in args else ()))
    partition(proxy, "drop-policy", table)


def test_what_cannot_be_divided_is_told_and_nothing_is_done(cluster, proxy, run):
    node = cluster.primaries[0]
    node.sql("CREATE TABLE alone (id bigint, at date NOT NULL, size int, extra json, PRIMARY KEY (id, at)); CREATE TABLE free (at date, size int, extra json)",
             dbname="app")
    month = ("--by", "at", "--every", "1month", "--now", "2026-01-10")
    wrong = [
        ("alone", "hash:size:4", "its unique index alone_pkey (id, at) does not contain size"),
        ("alone", "hash:nothing:4", "it has no column nothing"),
        ("free", "hash:extra:4", "data type json has no default operator class"),
        ("free", "list:size:1,two", "invalid input syntax for type integer"),
        ("free", "list:size:1,01", "would overlap partition"),
        ("free", "hash:size:0", "takes a number from 1 to 1000"),
        ("free", "hash:size:1001", "takes a number from 1 to 1000"),
        ("free", "list:size:", "a value is missing"),
        ("free", "list:size:1:other", "it takes hash:COLUMN:8"),
        ("free", "mod:size:8", "it takes hash:COLUMN:8"),
        ("free", "range:1month", "is not narrower than a partition, which is 1 month wide"),
        ("free", "range:1hour", "the column has dates: an interval is one day or longer"),
    ]
    for table, sub, text in wrong:
        ran = partition(proxy, "create", table, *month, "--sub", sub, code=5)
        assert text in ran.out and kind(node, table) == "r", ran
    assert node.value("SELECT count(*) FROM pg_class WHERE relname LIKE '%%pgshunt\\_try%%'", (), dbname="app") == 0
    assert "when it is done, divides partitions to come" in ctl(proxy, "partition", "convert", "free", *month[:4], "--sub", "hash:size:4", code=2).err
    partition(proxy, "create", "free", *month)
    assert "its partitions cannot be divided" in partition(proxy, "alter", "free", "--sub", "list:size:x", code=5).out
    assert partition(proxy, "show", "free", "--now", "2026-01-10", "--json").json["tables"][0]["sub"] is None
    partition(proxy, "drop-policy", "free")


def test_tables_that_others_have_divided_are_taken_over(cluster, proxy, run):
    node = cluster.primaries[0]
    for table, by, children in (
            ("hashed", "HASH (id)", ["FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "FOR VALUES WITH (MODULUS 2, REMAINDER 1)"]),
            ("uneven", "HASH (id)", ["FOR VALUES WITH (MODULUS 2, REMAINDER 0)", "FOR VALUES WITH (MODULUS 4, REMAINDER 1)",
                                     "FOR VALUES WITH (MODULUS 4, REMAINDER 3)"]),
            ("listed", "LIST (country)", ["FOR VALUES IN ('a,b', 'it''s')", "FOR VALUES IN (NULL)", "DEFAULT"]),
            ("numbered", "LIST (id)", ["FOR VALUES IN (1, 2)", "FOR VALUES IN (-3)"]),
            ("dated", "RANGE (at)", [f"FOR VALUES FROM ('2026-01-{d:02}') TO ('2026-01-{d + 10 if d < 21 else 31}')" for d in (1, 11, 21)]),
            ("other", "RANGE (id)", ["FOR VALUES FROM (1) TO (10)"])):
        node.sql(f"CREATE TABLE {table} (id bigint, at date NOT NULL, country text) PARTITION BY RANGE (at);"
                 f"CREATE TABLE {table}_2026_01 PARTITION OF {table} FOR VALUES FROM ('2026-01-01') TO ('2026-02-01') PARTITION BY {by};"
                 + "".join(f"CREATE TABLE {table}_{i} PARTITION OF {table}_2026_01 {bound};" for i, bound in enumerate(children)), dbname="app")
    for table, sub, made in (("hashed", 'hash:"id":2', 2), ("listed", 'list:"country":"a,b"+"it\'s",null:default', 3),
                             ("numbered", 'list:"id":"-3","1"+"2"', 2), ("dated", "range:10 days", None)):
        ran = partition(proxy, "adopt", table, "--ahead", "2", "--now", "2026-01-10")
        assert f"each is divided again: --sub '{sub}'" in ran.out, ran
        found = parts(node, table)
        assert list(found) == [f"{table}_2026_0{m}" for m in (1, 2, 3)]
        assert made is None or [len(found[name]) for name in list(found)[1:]] == [made, made]
        partition(proxy, "drop-policy", table)
    assert {bound for _, bound in tree(node, "listed_2026_02")} >= {"FOR VALUES IN ('a,b', 'it''s')", "FOR VALUES IN (NULL)", "DEFAULT"}
    for table in ("uneven", "other"):
        ran = partition(proxy, "adopt", table, "--now", "2026-01-10", code=5)
        assert f"{table}_2026_01 is divided in a way that is not maintained" in ran.out
    partition(proxy, "adopt", "uneven", "--sub", "none", "--now", "2026-01-10")
    assert [len(leaves) for leaves in parts(node, "uneven").values()] == [3, 0, 0, 0, 0]
    partition(proxy, "drop-policy", "uneven")


def test_rows_of_the_default_partition_find_their_part(cluster, proxy, run):
    node = cluster.primaries[0]
    node.sql("CREATE TABLE strayed (id bigint NOT NULL, at date NOT NULL, country text)", dbname="app")
    partition(proxy, "create", "strayed", "--by", "at", "--every", "1month", "--ahead", "1", "--default", "on", "--sub", "list:country:de,fr:default",
              "--now", "2026-01-10")
    run("INSERT INTO strayed SELECT g, '2026-03-05', CASE g % 3 WHEN 0 THEN 'de' WHEN 1 THEN 'fr' END FROM generate_series(1, 90) g")
    partition(proxy, "maintain", "strayed", "--now", "2026-02-10")
    assert run("SELECT count(*) FROM strayed") == [(90,)]
    assert [node.value(f"SELECT count(*) FROM {name}", dbname="app") for name in
            ("strayed_default", "strayed_p20260301_de", "strayed_p20260301_fr", "strayed_p20260301_default")] == [0, 30, 30, 30]
    partition(proxy, "drop-policy", "strayed")


def test_writers_notice_nothing_of_trees_that_come_and_go(cluster, proxy, run):
    run("CREATE TABLE busy (user_id bigint NOT NULL, at date NOT NULL, PRIMARY KEY (user_id, at))")
    partition(proxy, "create", "busy", "--by", "at", "--every", "1day", "--ahead", "2", "--keep", "3days", "--on-expiry", "drop", "--sub", "hash:user_id:4",
              "--now", "2026-01-10")
    stop, errors, written = threading.Event(), [], []

    def write(connection, number):
        cursor = connection.cursor()
        while not stop.is_set():
            number += 1
            try:
                cursor.execute("INSERT INTO busy VALUES (%s, '2026-01-12')", (number,))
                written.append(number)
            except psycopg2.Error as error:
                errors.append(error)
        connection.close()
    threads = [threading.Thread(target=write, args=(proxy.connect(), i * 1000000)) for i in (1, 2)]
    for thread in threads:
        thread.start()
    try:
        for day in range(11, 16):
            partition(proxy, "maintain", "busy", "--now", f"2026-01-{day}", code=None)
        wait_until(lambda: errors or len(written) > 100, 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == [] and sorted(number for number, in run("SELECT user_id FROM busy")) == sorted(written)
    partition(proxy, "maintain", "busy", "--now", "2026-01-15")
    assert len(alike(cluster, "busy")) == 6 and tree(cluster.primaries[0], "busy") == tree(cluster.primaries[1], "busy")
    partition(proxy, "drop-policy", "busy")


@needs_failpoints
def test_a_run_that_is_killed_leaves_no_half_tree(cluster, proxy, run):
    run("CREATE TABLE killed (user_id bigint NOT NULL, at date NOT NULL, PRIMARY KEY (user_id, at))")
    more = ("--by", "at", "--every", "1day", "--ahead", "1", "--keep", "2days", "--on-expiry", "archive:dead", "--sub", "hash:user_id:4")

    def killed(step, *args):
        ran = partition(proxy, *args, environment={"PGSHUNT_CRASH_AT": step}, code=None)
        assert ran.code == -signal.SIGKILL, (step, ran)
        for node in cluster.primaries:
            wait_until(lambda node=node: node.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgshunt partition'",
                                                    dbname="app") == 0, 60)
            whole(node)

    def whole(node):
        assert {len(leaves) for leaves in parts(node, "killed").values()} <= {4}
        assert node.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'killed\\_%%\\_h%%' AND relkind = 'r' AND NOT relispartition", (), dbname="app") == 0
    killed("partition_reshaped", "create", "killed", *more, "--now", "2026-01-10")
    partition(proxy, "create", "killed", *more, "--now", "2026-01-10")
    rows = 0
    for day, step in enumerate(("partition_making", "partition_made", "partition_detached", "partition_gone"), 11):
        run(f"INSERT INTO killed SELECT g, '2026-01-{day}' FROM generate_series(1, 40) g")
        rows += 40
        if day > 12 or "ma" in step:
            killed(step, "maintain", "killed", "--now", f"2026-01-{day}")
        partition(proxy, "maintain", "killed", "--now", f"2026-01-{day}")
    for node in cluster.primaries:
        whole(node)
        assert node.value("SELECT count(*) FROM pgshunt.partition_leaving", dbname="app") == 0
        assert node.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'dead'::regnamespace AND relkind IN ('r', 'p')", dbname="app") % 5 == 0
    assert tree(cluster.primaries[0], "killed") == tree(cluster.primaries[1], "killed")
    archived = sum(node.value(f"SELECT count(*) FROM dead.{name}", dbname="app") for node in cluster.primaries for name, in
                   node.sql("SELECT relname FROM pg_class WHERE relnamespace = 'dead'::regnamespace AND relkind = 'p'", dbname="app"))
    assert run("SELECT count(*) FROM killed")[0][0] + archived == rows
    partition(proxy, "drop-policy", "killed")

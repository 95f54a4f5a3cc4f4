"""What pgshuntctl partition refuses: it says what is wrong and how to mend it, and nothing has been done."""
import pytest

from ctl_support import ctl
from partition_support import cluster, proxy

TABLES = ("split",)


@pytest.fixture(scope="module")
def node(cluster):
    return cluster.primaries[0]


def everything(cluster):
    """All tables with their kinds and bounds, and all policies: what must not have changed."""
    found = []
    for node in cluster.primaries:
        found += node.sql("SELECT c.oid, c.oid::regclass::text, c.relkind::text, pg_get_expr(c.relpartbound, c.oid), c.relowner FROM pg_class c"
                          " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'tight')) ORDER BY 1", dbname="app")
    if cluster.primaries[0].value("SELECT to_regclass('pgshunt.partition_policy') IS NOT NULL", dbname="app"):
        found += cluster.primaries[0].sql("SELECT database, schema_name, table_name, every, keep FROM pgshunt.partition_policy ORDER BY 1, 2, 3", dbname="app")
    return found


@pytest.fixture
def refused(cluster, proxy):
    def run(*args, text, mend=None, code=5):
        before = everything(cluster)
        ran = ctl(proxy, "partition", *args, "--json", code=code)
        told = [event for event in ran.json["events"] if event["kind"] in ("problem", "failed")]
        assert any(text in event["text"] for event in told), ran
        assert mend is None or any(mend in (event.get("mend") or "") for event in told if text in event["text"]), ran
        assert everything(cluster) == before
        return ran
    return run


def test_tables_of_another_kind(cluster, proxy, node, refused):
    node.sql("""CREATE TABLE plain (id bigint, at timestamptz NOT NULL, word text NOT NULL, extra jsonb);
                CREATE VIEW seen AS SELECT * FROM plain; CREATE MATERIALIZED VIEW kept AS SELECT * FROM plain;
                CREATE TABLE by_list (id int NOT NULL, at date NOT NULL) PARTITION BY LIST (id);
                CREATE TABLE by_hash (id int NOT NULL, at date NOT NULL) PARTITION BY HASH (id);
                CREATE TABLE by_two (id int NOT NULL, at date NOT NULL) PARTITION BY RANGE (id, at);
                CREATE TABLE by_month (at timestamp NOT NULL) PARTITION BY RANGE (date_trunc('month', at));
                CREATE TABLE by_other (at date NOT NULL, made date NOT NULL) PARTITION BY RANGE (made);
                CREATE TABLE heir () INHERITS (by_parent)""".replace("CREATE TABLE heir", "CREATE TABLE by_parent (at date NOT NULL); CREATE TABLE heir"),
             dbname="app")
    month = ("--by", "at", "--every", "1month")
    only = "only tables partitioned by ranges of one column"
    for table, text in (("seen", "it is no table"), ("kept", "it is no table"), ("by_list", "it is partitioned by list"),
                        ("by_hash", "it is partitioned by hash"), ("by_two", "it is partitioned by several columns"),
                        ("by_month", "it is partitioned by an expression"), ("by_other", "it is partitioned by another column")):
        refused("create", table, *month, text=text, mend=only)
    refused("create", "heir", *month, text="inherit")
    refused("create", "by_parent", *month, text="inherit")
    refused("adopt", "by_list", text="it is partitioned by list", mend=only)
    refused("adopt", "plain", text="it is not partitioned", mend="pgshuntctl partition create")


def test_wrong_columns_and_intervals(node, refused):
    plain = ("create", "untyped")
    node.sql("CREATE TABLE untyped (id bigint, at timestamptz NOT NULL, extra jsonb)", dbname="app")
    refused(*plain, "--by", "extra", "--every", "1month", text="column extra is of type jsonb", mend="partitions are by timestamptz")
    node.sql("CREATE TABLE worded (word text COLLATE \"en-x-icu\" NOT NULL)", dbname="app")
    refused("create", "worded", "--by", "word", "--every", "1month", text="its text is not ordered by its bytes", mend='COLLATE "C"')
    refused(*plain, "--by", "at", "--every", "1month", "--keep", "10days", text="--keep is shorter than one partition", mend="keep longer, or make partitions smaller")
    refused(*plain, "--by", "at", "--every", "1month", "--timezone", "Mars/Olympus", text='there is no time zone "Mars/Olympus"', mend="pg_timezone_names")
    node.sql("CREATE TABLE fresh (at date NOT NULL)", dbname="app")
    refused("create", "fresh", "--by", "at", "--every", "1month", "--template", "nowhere", text='the template table "public"."nowhere" is not there',
            mend='CREATE TABLE "public"."nowhere" (LIKE')


def test_a_beginning_behind_the_first_row(cluster, proxy, node, refused):
    """A table that has rows is not create's; an adopted one has partitions where its rows are; what expires is not made anew."""
    node.sql("CREATE TABLE full_one (at date NOT NULL); INSERT INTO full_one VALUES ('2025-06-01')", dbname="app")
    refused("create", "full_one", "--by", "at", "--every", "1month", "--start", "2026-01-01", text="it has rows")
    node.sql("CREATE TABLE late (at date NOT NULL)", dbname="app")
    ctl(proxy, "partition", "create", "late", "--by", "at", "--every", "1month", "--start", "2026-01-01", "--now", "2026-02-01")
    with pytest.raises(Exception, match="no partition of relation"):
        proxy.sql("INSERT INTO late VALUES ('2025-12-31')")
    refused("expire", "late", "--before", "2030-01-01", "--now", "2026-02-01", text="--before is in the future")
    refused("expire", "late", "--before", "soon", "--now", "2026-02-01", text='"soon" is no value of its column', mend="--before 2026-01-01", code=1)
    refused("create", "late", "--by", "at", "--every", "1month", text="it has a policy", mend="alter changes it", code=1)
    refused("alter", "late", "--keep", "3days", text="--keep is shorter than one partition")
    ctl(proxy, "partition", "drop-policy", "late")


def test_partitions_made_by_hand_that_overlap(proxy, node):
    """What somebody has made wider or narrower stays, and new ones are made around it: no gap, no overlap."""
    node.sql("CREATE TABLE crossed (at date NOT NULL)", dbname="app")
    ctl(proxy, "partition", "create", "crossed", "--by", "at", "--every", "1month", "--ahead", "1", "--now", "2026-01-10")
    node.sql("CREATE TABLE crossed_own PARTITION OF crossed FOR VALUES FROM ('2026-03-15') TO ('2026-05-10')", dbname="app")
    ctl(proxy, "partition", "maintain", "crossed", "--now", "2026-05-20")
    bounds = [tuple(bound.split("'")[1::2]) for bound, in node.sql(
        "SELECT pg_get_expr(relpartbound, c.oid) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'crossed'::regclass ORDER BY 1",
        dbname="app")]
    assert ("2026-03-15", "2026-05-10") in bounds and ("2026-05-10", "2026-06-01") in bounds and ("2026-06-01", "2026-07-01") in bounds
    assert all(one[1] <= other[0] for one, other in zip(bounds, bounds[1:]))
    ctl(proxy, "partition", "drop-policy", "crossed")


def test_a_name_that_is_taken(cluster, proxy, node, refused):
    node.sql("CREATE TABLE named (at date NOT NULL); CREATE TABLE named_p20260301 (at date NOT NULL)", dbname="app")
    ctl(proxy, "partition", "create", "named", "--by", "at", "--every", "1month", "--ahead", "1", "--now", "2026-01-10")
    refused_before = everything(cluster)
    ran = ctl(proxy, "partition", "maintain", "named", "--now", "2026-02-10", "--json", code=1)
    event = next(event for event in ran.json["events"] if event["kind"] == "failed")
    assert "cannot make partition named_p20260301" in event["text"] and "attach it, rename it or drop it" in event["mend"]
    assert everything(cluster) == refused_before
    node.sql("DROP TABLE named_p20260301", dbname="app")
    ctl(proxy, "partition", "maintain", "named", "--now", "2026-02-10")
    ctl(proxy, "partition", "drop-policy", "named")
    # Names that are cut to 63 bytes are not cut to the same.
    long = "n" * 60
    for end in "ab":
        node.sql(f"CREATE TABLE {long}{end} (at date NOT NULL)", dbname="app")
        ctl(proxy, "partition", "create", long + end, "--by", "at", "--every", "1day", "--ahead", "3", "--now", "2026-01-10")
        assert node.value(f"SELECT count(*) FROM pg_inherits WHERE inhparent = '{long}{end}'::regclass", dbname="app") == 4
        ctl(proxy, "partition", "drop-policy", long + end)


def test_a_missing_right(cluster, proxy, node, refused):
    """A role that may not own or create: nothing is changed, and what is missing is said."""
    for role in ("stranger", "lodger"):
        cluster.create_role(role)
    node.sql("CREATE TABLE foreign_one (at date NOT NULL); GRANT SELECT ON foreign_one TO stranger;"
             "CREATE SCHEMA tight; GRANT USAGE ON SCHEMA tight TO PUBLIC; CREATE TABLE tight.owned (at date NOT NULL);"
             "ALTER TABLE tight.owned OWNER TO lodger; CREATE TABLE let (at date NOT NULL); ALTER TABLE let OWNER TO lodger;"
             "GRANT CREATE ON SCHEMA public TO lodger", dbname="app")
    month = ("--by", "at", "--every", "1month", "--now", "2026-01-10")
    node.sql("CREATE TABLE warm (at date NOT NULL)", dbname="app")
    ctl(proxy, "partition", "create", "warm", *month)  # the catalog's tables are there
    before = everything(cluster)
    for table, role, what, how in (("let", "lodger", "lodger may not record policies", "pgshunt.partition_run TO lodger"),
                                   ("foreign_one", "stranger", "stranger may not change it", "or GRANT postgres TO stranger"),
                                   ("tight.owned", "lodger", "lodger may not make tables in schema tight", "GRANT CREATE ON SCHEMA tight TO lodger")):
        ran = ctl(proxy, "partition", "create", table, *month, "--user", role, "--json", code=None)
        told = [(event["text"], event.get("mend") or "") for event in ran.json["events"] if event["kind"] in ("problem", "failed")]
        assert ran.code in (1, 5) and any(text.endswith(what) and mend.endswith(how) for text, mend in told), ran
        assert everything(cluster) == before
        node.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON pgshunt.partition_policy, pgshunt.partition_run TO lodger, stranger", dbname="app")
    ran = ctl(proxy, "partition", "maintain", "warm", "--now", "2026-03-10", "--user", "stranger", "--json", code=1)
    told = [(event["text"], event.get("mend") or "") for event in ran.json["events"] if event["kind"] == "failed"]
    assert any("denied" in text or "must be owner" in text for text, _ in told) and any("GRANT" in mend or "--user" in mend for _, mend in told), ran
    assert everything(cluster) == before
    ctl(proxy, "partition", "drop-policy", "warm")


def test_a_shard_that_is_down_at_create(cluster, proxy, refused):
    proxy.sql("CREATE TABLE split (user_id bigint NOT NULL, at date NOT NULL)")
    down = cluster.primaries[1]
    create = ("create", "split", "--by", "at", "--every", "1month", "--now", "2026-01-10")
    before = everything(cluster)
    down.stop()
    try:
        ran = ctl(proxy, "partition", *create, code=1)
        assert "s1: cannot connect to the shard's primary" in ran.out
    finally:
        down.start()
    proxy.wait_nodes()
    assert everything(cluster) == before
    ctl(proxy, "partition", *create)
    counts = [node.value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'split'::regclass", dbname="app") for node in cluster.primaries]
    assert counts == [5, 5]
    ctl(proxy, "partition", "drop-policy", "split")

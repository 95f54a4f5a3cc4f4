"""What tests of pgshuntctl partition begin with: servers, a proxy that maintains nothing by itself, and what there is to look at."""
import pytest

from ctl_support import ctl
from harness import Cluster, Proxy


@pytest.fixture(scope="module")
def cluster():
    with Cluster(shards=2, replicas=0) as running:
        yield running


def keyspaces(tables):
    return [{"name": "users", "type": "bigint", "tables": [{"name": name, "key": "user_id"} for name in tables]}]


@pytest.fixture(scope="module")
def proxy(cluster, request):
    """With the module's TABLES sharded by user_id, and its REFERENCE tables."""
    with Proxy(cluster, keyspaces=keyspaces(request.module.TABLES), reference=getattr(request.module, "REFERENCE", None),
               options={"partition": {"schedule": ""}}) as running:
        running.wait_nodes()
        yield running


@pytest.fixture
def run(proxy):
    """Statements through the proxy: rows, or None."""
    connection = proxy.connect()
    connection.autocommit = True

    def execute(sql, *values):
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else None
    yield execute
    connection.close()


def partition(proxy, *args, **more):
    return ctl(proxy, "partition", *args, **more)


RANGES = """SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = %s::regclass ORDER BY 2, 1"""


def ranges(node, table):
    return node.sql("SET TimeZone = 'UTC'; " + RANGES, (table,), dbname="app")


def names(node, table):
    return [name for name, _ in ranges(node, table)]


def alike(cluster, table):
    first, second = (ranges(node, table) for node in cluster.primaries)
    assert first == second and first
    return first


def exists(node, name):
    return node.value("SELECT to_regclass(%s) IS NOT NULL", (name,), dbname="app")


def kind(node, table):
    return node.value("SELECT (SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s))", (table,), dbname="app")


# Everything that belongs to a table.
SHAPE = """
SELECT 'column', attname::text, format_type(atttypid, atttypmod), attnotnull::text, attidentity::text || attgenerated::text,
       coalesce(pg_get_expr(d.adbin, d.adrelid), ''), attstattarget::text, coalesce(attacl::text, ''),
       coalesce(col_description(attrelid, attnum), '') FROM pg_attribute LEFT JOIN pg_attrdef d ON adrelid = attrelid AND adnum = attnum
 WHERE attrelid = %(t)s::regclass AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid), '', '', coalesce(obj_description(oid, 'pg_constraint'), ''), '', '', ''
  FROM pg_constraint WHERE conrelid = %(t)s::regclass AND contype <> 'n'
UNION ALL SELECT 'index', relname, replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON '), indisreplident::text, '',
       coalesce(obj_description(indexrelid, 'pg_class'), ''), '', '', ''
  FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = %(t)s::regclass
UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid), tgenabled::text, '', '', '', '', ''
  FROM pg_trigger WHERE tgrelid = %(t)s::regclass AND NOT tgisinternal
UNION ALL SELECT 'policy', polname, pg_get_expr(polqual, polrelid), polcmd::text, polroles::text, '', '', '', '' FROM pg_policy
 WHERE polrelid = %(t)s::regclass
UNION ALL SELECT 'statistics', stxname, pg_get_statisticsobjdef(oid), '', '', '', '', '', '' FROM pg_statistic_ext WHERE stxrelid = %(t)s::regclass
UNION ALL SELECT 'publication', pubname, '', '', '', '', '', '', '' FROM pg_publication_rel JOIN pg_publication p ON p.oid = prpubid
 WHERE prrelid = %(t)s::regclass
UNION ALL SELECT 'table', relreplident::text, relrowsecurity::text, relforcerowsecurity::text, relacl::text,
       coalesce(obj_description(oid, 'pg_class'), ''), pg_get_userbyid(relowner), '', '' FROM pg_class WHERE oid = %(t)s::regclass
ORDER BY 1, 2, 3"""

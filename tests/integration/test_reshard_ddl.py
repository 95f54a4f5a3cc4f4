"""DDL while data moves: through pgshunt it reaches both sides and the job goes on; on one side alone the job rests and says so."""
import signal

import pytest

from harness import wait_until
from reshard_kills import Scene, make_cluster, needs_failpoints, wait_stopped
from reshard_support import forget_everything

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with make_cluster() as cluster:
        yield cluster


@pytest.fixture
def scene(cluster):
    forget_everything(*cluster.primaries)
    with Scene(cluster) as scene:
        yield scene


def columns(cluster):
    return [node.sql("SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'users'::regclass "
                     "AND attnum > 0 AND NOT attisdropped ORDER BY attname") for node in cluster.primaries]


def indexes(cluster):
    return [[row[0] for row in node.sql("SELECT indexname::text FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")]
            for node in cluster.primaries]


def same_everywhere(what):
    assert what[0] == what[1] == what[2]


def job_error(scene):
    return scene.cluster.primaries[0].value("SELECT error FROM pgshunt.job WHERE name = 'job'")


@needs_failpoints
def test_through_the_proxy_while_copying(scene):
    """Columns, types and indexes are changed when the copy has its snapshots, and behind it: no chunk and no change is lost."""
    scene.create()
    scene.runner = scene.start("run", "job", stop_at="run_snapshots")
    wait_stopped(scene.runner)
    proxy = scene.proxies[0]
    proxy.sql("ALTER TABLE users ADD COLUMN more int DEFAULT 5")
    proxy.sql("UPDATE users SET more = 6 WHERE id % 3 = 0")
    proxy.sql("CREATE INDEX orders_total ON orders (total)")
    proxy.sql("ALTER TABLE orders ALTER COLUMN number TYPE int")  # rewrites it: the snapshot does not have it any more
    scene.runner.send_signal(signal.SIGCONT)
    proxy.sql("ALTER TABLE users ADD COLUMN last text DEFAULT 'z'")
    proxy.sql("INSERT INTO users (id, balance, note, more) VALUES (2000000000, 1, 'n', 8)")
    wait_until(lambda: scene.state() == "streaming", 120, "the job to stream")
    for change in ("ADD COLUMN gone int", "ALTER COLUMN last TYPE varchar(9)", "DROP COLUMN gone"):
        proxy.sql(f"ALTER TABLE users {change}")
        scene.ledger.progress()
    scene.must("verify", "job")
    same_everywhere(columns(scene.cluster))
    same_everywhere(indexes(scene.cluster))
    scene.repeat("switch", "job", "--max-pause", "5s")
    rows = proxy.sql("SELECT id, more FROM users WHERE id >= 1000000000")
    assert len(rows) == 3001 and all(more == (8 if user == 2000000000 else 6 if user % 3 == 0 else 5) for user, more in rows)
    proxy.sql("DELETE FROM users WHERE id = 2000000000")
    scene.repeat("complete", "job")
    scene.stop_runner()
    scene.judge()


def test_on_the_source_alone(scene):
    """A column that the target does not have: the job rests and says why, and goes on by itself when it is mended."""
    scene.create()
    scene.run()
    source, target = scene.cluster.primaries[0], scene.cluster.primaries[2]
    source.sql("ALTER TABLE users ADD COLUMN alone int DEFAULT 1")
    source.sql("UPDATE users SET alone = 2 WHERE id >= 1000000000")
    wait_until(lambda: job_error(scene), 60, "the job to say what is wrong")
    assert 'column "alone" of public.users is on the source, but not on the target' in job_error(scene)
    assert "alone" in scene.must("status", "job")
    status, said = scene.ctl("switch", "job", "--max-pause", "500ms")
    assert status != 0 and scene.state() == "streaming", said
    target.sql("ALTER TABLE users ADD COLUMN alone int DEFAULT 1")
    scene.cluster.primaries[1].sql("ALTER TABLE users ADD COLUMN alone int DEFAULT 1")
    wait_until(lambda: job_error(scene) is None, 60, "the job to go on")
    assert scene.runner.poll() is None
    scene.ledger.progress()
    scene.must("verify", "job")
    scene.repeat("cancel", "job")
    scene.stop_runner()
    scene.nothing_is_left()
    scene.judge()

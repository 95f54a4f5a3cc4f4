/* test_topology.c: topologies from configurations, what a reload keeps, schemas between threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "proxy/topology.h"

/* Loads a configuration whose `databases` list is the text given. */
static struct config *load(const char *databases)
{
    char path[] = "/tmp/pgshunt-topology-XXXXXX";
    struct config_error error = {""};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "w");
    fprintf(file, "auth = { method = \"trust\"; };\ndatabases = ( %s );\n", databases);
    fclose(file);
    struct config *config = config_load(path, &error);
    unlink(path);
    if (!config)
        fail_msg("%s", error.text);
    return config;
}

static const char two_shards[] =
    "{ name = \"app\"; shards = ("
    " { name = \"s0\"; dbname = \"one\"; weight = 3; nodes = ("
    "   { host = \"10.0.0.1\"; port = 5501; weight = 2; }, { host = \"10.0.0.2\"; port = 5502; } "
    "); },"
    " { name = \"s1\"; dbname = \"two\"; nodes = ( { host = \"10.0.0.1\"; port = 5501; } ); } );"
    " keyspaces = ( { name = \"users\"; type = \"bigint\"; hash = \"xxh64\";"
    "   tables = ( { name = \"users\"; key = \"id\"; } ); } );"
    " reference = ( \"countries\" ); }";

static void test_build(void **state)
{
    (void)state;
    struct topology *topology = topology_new(load(two_shards), NULL);
    assert_int_equal(topology->ndatabases, 1);
    assert_null(topology_database(topology, "nope"));
    const struct database *database = topology_database(topology, "app");
    assert_non_null(database);
    assert_int_equal(database->nshards, 2);
    assert_ptr_equal(database->config, &topology->config->databases[0]);

    const struct shard *shard = &database->shards[1];
    assert_string_equal(shard->name, "s1");
    assert_string_equal(shard->dbname, "two");
    assert_int_equal(shard->index, 1);
    const struct node *node = database->shards[0].nodes[0];
    assert_string_equal(node->host, "10.0.0.1");
    assert_string_equal(node->dbname, "one");
    assert_int_equal(node->weight, 2);
    assert_int_equal(node->role, NODE_ROLE_UNKNOWN);
    assert_int_equal(node->state, NODE_STATE_UNKNOWN);
    assert_true(node->lag_us == -1 && node->lag_bytes == -1 && node->fresh_as_of == 0);
    /* The same server under another database name is another node. */
    assert_ptr_not_equal(shard->nodes[0], node);
    assert_int_not_equal(shard->nodes[0]->id, node->id);

    assert_int_equal(shardmap_shards(database->map), 2);
    const struct table_rule *users = shardmap_table(database->map, NULL, "users");
    assert_int_equal(users->class, TABLE_SHARDED);
    assert_string_equal(users->key, "id");
    assert_int_equal(shardmap_buckets_of(users->keyspace, 0), SHARDKEY_BUCKETS / 4 * 3);
    assert_int_equal(shardmap_table(database->map, NULL, "countries")->class, TABLE_REFERENCE);
    assert_int_equal(shardmap_table(database->map, NULL, "other")->class, TABLE_UNSHARDED);
    topology_unref(topology);
}

#define NODE(host, port, more) "{ host = \"" host "\"; port = " #port "; " more " }"
#define DATABASE(name, nodes)                                                                      \
    "{ name = \"" name "\"; shards = ( { name = \"s0\"; dbname = \"d\"; nodes = ( " nodes          \
    " ); } ); }"

static void test_reload_keeps_nodes(void **state)
{
    (void)state;
    struct topology *old = topology_new(
        load(DATABASE("a", NODE("10.0.0.1", 1, "") "," NODE("10.0.0.2", 2, ""))), NULL);
    struct node *kept = old->databases[0].shards[0].nodes[0];
    struct node *gone = node_ref(old->databases[0].shards[0].nodes[1]);
    atomic_store(&kept->state, NODE_STATE_UP);
    atomic_store(&kept->timeline, 7);

    struct topology *next = topology_new(
        load(DATABASE("a", NODE("10.0.0.3", 3, "") "," NODE("10.0.0.1", 1, "weight = 5;"))), old);
    assert_int_equal(next->version, old->version + 1);
    topology_unref(old);
    const struct shard *shard = &next->databases[0].shards[0];
    assert_ptr_equal(shard->nodes[1], kept);
    assert_int_equal(kept->state, NODE_STATE_UP);
    assert_int_equal(kept->weight, 5);
    assert_int_equal(shard->nodes[0]->state, NODE_STATE_UNKNOWN);
    assert_int_equal(gone->references, 1); /* ours is the last */
    node_unref(gone);

    /* Another region makes another node, which knows what the old one knew. */
    struct topology *moved =
        topology_new(load(DATABASE("a", NODE("10.0.0.1", 1, "region = \"eu\";"))), next);
    struct node *node = moved->databases[0].shards[0].nodes[0];
    assert_ptr_not_equal(node, kept);
    assert_string_equal(node->region, "eu");
    assert_int_equal(node->state, NODE_STATE_UP);
    assert_int_equal(node->timeline, 7);
    topology_unref(next);
    topology_unref(moved);
}

static void test_one_node_in_two_databases(void **state)
{
    (void)state;
    struct topology *topology = topology_new(
        load(DATABASE("a", NODE("10.0.0.1", 1, "")) "," DATABASE("b", NODE("10.0.0.1", 1, ""))),
        NULL);
    struct node *node = topology->databases[0].shards[0].nodes[0];
    assert_ptr_equal(topology->databases[1].shards[0].nodes[0], node);
    assert_int_equal(node->references, 2);
    topology_unref(topology);
}

static void test_addresses(void **state)
{
    (void)state;
    struct topology *topology = topology_new(
        load(DATABASE("a", NODE("10.1.2.3", 5501, "") "," NODE("::1", 5502, "") "," NODE(
                               "/run/postgresql", 5503, "") "," NODE("db.example", 5504, ""))),
        NULL);
    struct node **nodes = topology->databases[0].shards[0].nodes;
    struct sockaddr_storage address;
    socklen_t length;
    char text[64];

    assert_true(node_address(nodes[0], &address, &length));
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;
    assert_int_equal(length, sizeof *v4);
    assert_int_equal(v4->sin_family, AF_INET);
    assert_int_equal(ntohs(v4->sin_port), 5501);
    assert_string_equal(inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text), "10.1.2.3");

    assert_true(node_address(nodes[1], &address, &length));
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;
    assert_int_equal(v6->sin6_family, AF_INET6);
    assert_int_equal(ntohs(v6->sin6_port), 5502);

    assert_true(node_address(nodes[2], &address, &length));
    const struct sockaddr_un *local = (const struct sockaddr_un *)&address;
    assert_int_equal(local->sun_family, AF_UNIX);
    assert_string_equal(local->sun_path, "/run/postgresql/.s.PGSQL.5503");
    assert_int_equal(length, offsetof(struct sockaddr_un, sun_path) + strlen(local->sun_path) + 1);

    assert_false(node_address(nodes[3], &address, &length)); /* a name: the monitor's */
    struct sockaddr_in found = {.sin_family = AF_INET, .sin_port = htons(5504)};
    node_set_address(nodes[3], (struct sockaddr *)&found, sizeof found);
    assert_true(node_address(nodes[3], &address, &length));
    assert_memory_equal(&address, &found, sizeof found);
    topology_unref(topology);
}

static struct schema *schema_with(const char *table)
{
    struct schema *schema = schema_new();
    struct schema_relation relation = {
        .schema = "public", .name = table, .kind = 'r', .persistence = 'p'};
    schema_add_relation(schema, &relation);
    return schema;
}

static void test_schema(void **state)
{
    (void)state;
    struct topology *old = topology_new(load(DATABASE("a", NODE("10.0.0.1", 1, ""))), NULL);
    assert_null(topology_schema(&old->databases[0]));
    assert_int_equal(topology_schema_version(&old->databases[0]), 0);

    topology_publish_schema(&old->databases[0], schema_with("first"));
    struct schema_ref *first = topology_schema(&old->databases[0]);
    assert_non_null(schema_relation(first->schema, NULL, "first"));
    assert_int_equal(first->version, topology_schema_version(&old->databases[0]));

    /* Shared with the next topology; an old reference stays good when it is replaced. */
    struct topology *next = topology_new(load(DATABASE("a", NODE("10.0.0.9", 9, ""))), old);
    topology_publish_schema(&next->databases[0], schema_with("second"));
    assert_true(topology_schema_version(&old->databases[0]) > first->version);
    assert_non_null(schema_relation(first->schema, NULL, "first"));
    struct schema_ref *second = topology_schema(&old->databases[0]);
    assert_null(schema_relation(second->schema, NULL, "first"));
    assert_non_null(schema_relation(second->schema, NULL, "second"));
    schema_unref(first);
    topology_unref(old);
    topology_unref(next);
    assert_non_null(schema_relation(second->schema, NULL, "second")); /* outlives both */
    schema_unref(second);
}

static void *read_schemas(void *arg)
{
    const struct database *database = arg;
    intptr_t seen = 0;
    for (int i = 0; i < 20000; i++) {
        struct schema_ref *ref = topology_schema(database);
        seen += schema_relation(ref->schema, NULL, "table") != NULL;
        schema_unref(ref);
    }
    return (void *)seen;
}

static void test_schema_between_threads(void **state)
{
    (void)state;
    struct topology *topology = topology_new(load(DATABASE("a", NODE("10.0.0.1", 1, ""))), NULL);
    struct database *database = &topology->databases[0];
    pthread_t readers[2];
    void *seen;
    topology_publish_schema(database, schema_with("table"));
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_schemas, database), 0);
    for (int i = 0; i < 500; i++)
        topology_publish_schema(database, schema_with("table"));
    for (int i = 0; i < 2; i++) {
        pthread_join(readers[i], &seen);
        assert_int_equal((intptr_t)seen, 20000);
    }
    topology_unref(topology);
}

static void test_shard_primary(void **state)
{
    (void)state;
    struct topology *topology = topology_new(
        load(DATABASE("a", NODE("10.0.0.1", 1, "") "," NODE("10.0.0.2", 2, ""))), NULL);
    const struct shard *shard = &topology->databases[0].shards[0];
    struct node *a = shard->nodes[0], *b = shard->nodes[1];
    assert_null(shard_primary(shard));

    atomic_store(&a->role, NODE_ROLE_PRIMARY);
    atomic_store(&a->state, NODE_STATE_UP);
    atomic_store(&a->timeline, 1);
    atomic_store(&b->role, NODE_ROLE_REPLICA);
    atomic_store(&b->state, NODE_STATE_UP);
    atomic_store(&b->timeline, 1);
    assert_ptr_equal(shard_primary(shard), a);

    /* b is promoted: the timeline decides, also once b has died. */
    atomic_store(&b->role, NODE_ROLE_PRIMARY);
    atomic_store(&b->timeline, 2);
    assert_ptr_equal(shard_primary(shard), b);
    atomic_store(&b->state, NODE_STATE_DOWN);
    assert_null(shard_primary(shard));
    atomic_store(&b->state, NODE_STATE_UP);
    atomic_store(&b->fenced, true);
    assert_null(shard_primary(shard));
    topology_unref(topology);
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(node_role_name(NODE_ROLE_PRIMARY), "primary");
    assert_string_equal(node_role_name(NODE_ROLE_REPLICA), "replica");
    assert_string_equal(node_role_name(NODE_ROLE_UNKNOWN), "unknown");
    assert_string_equal(node_state_name(NODE_STATE_UP), "up");
    assert_string_equal(node_state_name(NODE_STATE_DOWN), "down");
    assert_string_equal(node_state_name(NODE_STATE_UNKNOWN), "unknown");
    int64_t now = clock_us();
    assert_true(now > 0 && clock_us() >= now);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_build),
        cmocka_unit_test(test_reload_keeps_nodes),
        cmocka_unit_test(test_one_node_in_two_databases),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_schema),
        cmocka_unit_test(test_schema_between_threads),
        cmocka_unit_test(test_shard_primary),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

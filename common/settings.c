/*
 * settings.c: the settings tables, one row per setting. Parsing, SHOW CONFIG, --help-config and
 * docs/reference/settings.md all come from here; a new setting is one row here and one member of
 * struct config (then write docs/reference/settings.md anew: pgshunt --help-config=markdown).
 */
#include "config_internal.h"

#include <stdio.h>
#include <string.h>

#define COUNT(rows) ((int)(sizeof(rows) / sizeof(rows)[0]))
#define MEMBER(owner, member)                                                                      \
    .offset = offsetof(owner, member), .width = sizeof(((owner *)0)->member)
#define RANGE(from, to) .info.range = from " .. " to, .low = from, .high = to

/* The value's kind, where it lives and its name; then the default (or required) and the range. */
#define INTEGER(owner, member, label)                                                              \
    .kind = SETTING_INTEGER, .info.type = "integer", .info.name = label, MEMBER(owner, member)
#define DURATION(owner, member, label)                                                             \
    .kind = SETTING_DURATION, .info.type = "duration", .info.name = label, MEMBER(owner, member)
#define SIZE(owner, member, label)                                                                 \
    .kind = SETTING_SIZE, .info.type = "size", .info.name = label, MEMBER(owner, member)
#define BOOLEAN(owner, member, label)                                                              \
    .kind = SETTING_BOOLEAN, .info.type = "boolean", .info.range = "", .info.name = label,         \
    MEMBER(owner, member)
#define STRING(owner, member, label)                                                               \
    .kind = SETTING_STRING, .info.type = "string", .info.range = "", .info.name = label,           \
    MEMBER(owner, member)
/* A string of a limited length: Postgres' identifiers have up to 63 bytes. */
#define TEXT(owner, member, label, from, to)                                                       \
    .kind = SETTING_STRING, .info.type = "string", .info.range = from " .. " to " bytes",          \
    .low = from, .high = to, .info.name = label, MEMBER(owner, member)
#define CHOICE(owner, member, label, words)                                                        \
    .kind = SETTING_CHOICE, .info.type = "one of " words, .info.range = "", .choices = words,      \
    .info.name = label, MEMBER(owner, member)
#define STRINGS(owner, member, counter, label)                                                     \
    .kind = SETTING_STRINGS, .info.type = "list of strings", .info.range = "", .info.name = label, \
    .count_offset = offsetof(owner, counter), MEMBER(owner, member)
/* One string, or a list of them. */
#define NAMES(owner, member, counter, label)                                                       \
    .kind = SETTING_STRINGS, .info.type = "string or list of strings", .info.range = "",           \
    .info.name = label, .count_offset = offsetof(owner, counter), MEMBER(owner, member)
#define OBJECTS(owner, member, counter, label, table, words)                                       \
    .kind = SETTING_OBJECTS, .info.type = "list of " words, .objects = table, .info.name = label,  \
    .count_offset = offsetof(owner, counter), MEMBER(owner, member)

#define DEFAULT(value) .info.initial = value
#define INHERIT(name) .info.initial = name, .inherits = true
#define REQUIRED .required = true
#define RESTART .info.reloadable = false
#define RELOAD .info.reloadable = true
#define HELP(text) .info.help = text

/* For those who write it as yes or no. */
#define TRUTH(no, yes) .truth = {no, yes}

/* clang-format off */

/* What a database and a user may set for themselves: the rows of both tables. */
#define POOL_OVERRIDES(owner)                                                                                          \
    {CHOICE(owner, pool.mode, "pool_mode", POOL_MODES), INHERIT("pool.mode"), RELOAD,                                  \
     HELP("how long a client keeps its server connection")},                                                           \
    {INTEGER(owner, pool.size, "pool_size"), INHERIT("pool.size"), RANGE("1", "10000"), RELOAD,                        \
     HELP("server connections per database, user and node")},                                                          \
    {INTEGER(owner, pool.min_size, "min_pool_size"), INHERIT("pool.min_size"), RANGE("0", "10000"), RELOAD,            \
     HELP("server connections per database, user and node that are kept open")},                                       \
    {INTEGER(owner, pool.reserve_size, "reserve_pool_size"), INHERIT("pool.reserve_size"), RANGE("0", "10000"), RELOAD,\
     HELP("more server connections for clients that have waited for reserve_timeout")},                                \
    {DURATION(owner, pool.reserve_timeout, "reserve_timeout"), INHERIT("pool.reserve_timeout"), RANGE("0s", "1d"), RELOAD, \
     HELP("a client that has waited so long may have a reserve connection; 0s: none may")},                            \
    {DURATION(owner, pool.server_idle_timeout, "server_idle_timeout"), INHERIT("pool.server_idle_timeout"), RANGE("0s", "30d"), RELOAD, \
     HELP("a server connection unused for so long is closed; 0s: never")},                                             \
    {DURATION(owner, pool.server_lifetime, "server_lifetime"), INHERIT("pool.server_lifetime"), RANGE("0s", "30d"), RELOAD, \
     HELP("a server connection older than that is closed when it is free; 0s: never")},                                \
    {DURATION(owner, pool.query_wait_timeout, "query_wait_timeout"), INHERIT("pool.query_wait_timeout"), RANGE("0s", "1d"), RELOAD, \
     HELP("a client that waits so long for a server connection gets an error; 0s: waits for ever")},                   \
    {DURATION(owner, pool.query_wait_notify, "query_wait_notify"), INHERIT("pool.query_wait_notify"), RANGE("0s", "1d"), RELOAD, \
     HELP("a client that waits so long for a server connection is told so by a NOTICE; 0s: never")},                   \
    {DURATION(owner, pool.client_idle_timeout, "client_idle_timeout"), INHERIT("timeouts.client_idle"), RANGE("0s", "30d"), RELOAD, \
     HELP("a client that asks nothing for so long, outside a transaction, is disconnected; 0s: never")},               \
    {DURATION(owner, pool.idle_transaction_timeout, "idle_transaction_timeout"), INHERIT("timeouts.idle_transaction"), RANGE("0s", "30d"), RELOAD, \
     HELP("a client that asks nothing for so long in a transaction is disconnected; 0s: never")},                      \
    {DURATION(owner, pool.transaction_timeout, "transaction_timeout"), INHERIT("timeouts.transaction"), RANGE("0s", "30d"), RELOAD, \
     HELP("a client whose transaction takes longer is disconnected; 0s: no limit")},                                   \
    {DURATION(owner, pool.query_timeout, "query_timeout"), INHERIT("timeouts.query"), RANGE("0s", "30d"), RELOAD,      \
     HELP("a query that takes longer, waiting included, is cancelled; 0s: no limit")},                                 \
    {CHOICE(owner, pool.read_write_split, "read_write_split", SPLIT_MODES), INHERIT("routing.read_write_split"),       \
     TRUTH("off", "aggressive"), RELOAD, HELP("what may run on replicas")},                                            \
    {CHOICE(owner, pool.route, "route", ROUTE_WORDS), INHERIT("routing.route"), RELOAD,                                \
     HELP("where statements run that do not say it themselves, within read_write_split")},                             \
    {TEXT(owner, region, "region", "0", "255"), INHERIT("routing.region"), RELOAD,                                     \
     HELP("replicas of this region are read from first; \"\": no preference")},                                        \
    {DURATION(owner, pool.max_lag, "max_lag"), INHERIT("routing.max_lag"), RANGE("0s", "7d"), RELOAD,                  \
     HELP("reads go to a replica only while it is no further behind its primary")},                                    \
    {CHOICE(owner, pool.no_replica, "no_replica", NO_REPLICA_WORDS), INHERIT("routing.no_replica"), RELOAD,            \
     HELP("what becomes of reads while no replica answers and is within max_lag")},                                    \
    {CHOICE(owner, pool.read_your_writes, "read_your_writes", "off | on"), INHERIT("routing.read_your_writes"),        \
     TRUTH("off", "on"), RELOAD, HELP("a client that has written reads from a replica only once it has replayed that write")}, \
    {CHOICE(owner, pool.monotonic_reads, "monotonic_reads", "off | on"), INHERIT("routing.monotonic_reads"),           \
     TRUTH("off", "on"), RELOAD, HELP("a client never reads an older state than it has read before")},                 \
    {CHOICE(owner, pool.require_key, "require_key", REQUIRE_KEY_WORDS), INHERIT("routing.require_key"),                \
     TRUTH("off", "error"), RELOAD, HELP("what becomes of statements about sharded tables that name no key")}

#define POOL_MODES "transaction | session | statement"
#define SPLIT_MODES "off | conservative | aggressive"
#define REQUIRE_KEY_WORDS "off | warn | error"

static const struct setting_row node_rows[] = {
    {TEXT(struct node_config, host, "host", "1", "255"), REQUIRED, RELOAD,
     HELP("host name or address of the server; a name is looked up again when a connection fails")},
    {INTEGER(struct node_config, port, "port"), DEFAULT("5432"), RANGE("1", "65535"), RELOAD,
     HELP("port of the server")},
    {STRING(struct node_config, region, "region"), DEFAULT(""), RELOAD,
     HELP("where the node stands, any word; shown in SHOW NODES")},
    {INTEGER(struct node_config, weight, "weight"), DEFAULT("1"), RANGE("0", "1000"), RELOAD,
     HELP("share of the reads among the replicas of its shard; 0: no reads while others can serve")},
};

static const struct setting_table node_table = {
    .noun = "node",
    .purpose = "One Postgres server of a shard. Which of them is the primary is found out, not configured.",
    .rows = node_rows, .count = COUNT(node_rows), .size = sizeof(struct node_config),
    .line_offset = offsetof(struct node_config, line), .name_offset = -1,
};

#define TLS_FILES_HELP "; as seen from the configuration file"

static const struct setting_row shard_rows[] = {
    {TEXT(struct shard_config, name, "name", "1", "63"), REQUIRED, RELOAD,
     HELP("name of the shard; it stays with the data, so never give it to another shard")},
    {TEXT(struct shard_config, dbname, "dbname", "0", "63"), DEFAULT(""), RELOAD,
     HELP("database on the servers; \"\": the name of the database it belongs to")},
    {INTEGER(struct shard_config, weight, "weight"), DEFAULT("1"), RANGE("0", "1000"), RELOAD,
     HELP("share of the buckets when a keyspace is first laid out; 0: none")},
    {OBJECTS(struct shard_config, nodes, nnodes, "nodes", &node_table, "nodes"), RANGE("1", "64"), REQUIRED, RELOAD,
     HELP("the primary and its replicas, in any order")},
    {CHOICE(struct shard_config, server_tls.mode, "server_tls.mode", "disable | prefer | require | verify-ca | verify-full"), INHERIT("server_tls.mode"), RELOAD,
     HELP("TLS with the servers of this shard")},
    {STRING(struct shard_config, server_tls.tls.ca_file, "server_tls.ca_file"), INHERIT("server_tls.ca_file"), RELOAD,
     HELP("certificates that vouch for this shard's servers")},
    {STRING(struct shard_config, server_tls.tls.cert_file, "server_tls.cert_file"), INHERIT("server_tls.cert_file"), RELOAD,
     HELP("certificate shown to this shard's servers")},
    {STRING(struct shard_config, server_tls.tls.key_file, "server_tls.key_file"), INHERIT("server_tls.key_file"), RELOAD,
     HELP("private key of that certificate")},
};

static const struct setting_table shard_table = {
    .noun = "shard",
    .purpose = "A part of the data: one primary with its streaming replicas. The first shard of a database "
               "also keeps every unsharded table.",
    .rows = shard_rows, .count = COUNT(shard_rows), .size = sizeof(struct shard_config),
    .line_offset = offsetof(struct shard_config, line), .name_offset = offsetof(struct shard_config, name),
    .check = config_check_shard,
};

static const struct setting_row table_rows[] = {
    {TEXT(struct table_config, name, "name", "1", "127"), REQUIRED, RELOAD,
     HELP("table name, or \"schema.table\" to mean the one of that schema only")},
    {NAMES(struct table_config, keys, nkeys, "key"), REQUIRED, RELOAD,
     HELP("column that holds the key; a list for a key of several columns, in the order of the keyspace's types")},
};

static const struct setting_table table_table = {
    .noun = "table",
    .purpose = "A table that is split by its key column.",
    .rows = table_rows, .count = COUNT(table_rows), .size = sizeof(struct table_config),
    .line_offset = offsetof(struct table_config, line), .name_offset = offsetof(struct table_config, name),
    .check = config_check_table,
};

static const struct setting_row list_rows[] = {
    {TEXT(struct list_config, shard, "shard", "1", "63"), REQUIRED, RELOAD,
     HELP("name of a shard")},
    {STRINGS(struct list_config, values, nvalues, "values"), REQUIRED, RELOAD,
     HELP("the keys that live there, each in quotes")},
};

static const struct setting_table list_table = {
    .noun = "list",
    .purpose = "Keys of a keyspace with map = \"list\" that live on one shard.",
    .rows = list_rows, .count = COUNT(list_rows), .size = sizeof(struct list_config),
    .line_offset = offsetof(struct list_config, line), .name_offset = -1,
};

static const struct setting_row range_rows[] = {
    {STRING(struct range_config, from, "from"), DEFAULT("MINVALUE"), RELOAD,
     HELP("the first key of the interval; MINVALUE: it begins below all keys")},
    {STRING(struct range_config, to, "to"), DEFAULT("MAXVALUE"), RELOAD,
     HELP("the first key behind the interval; MAXVALUE: it ends above all keys")},
    {TEXT(struct range_config, shard, "shard", "1", "63"), REQUIRED, RELOAD,
     HELP("name of the shard where these keys live")},
};

static const struct setting_table range_table = {
    .noun = "range",
    .purpose = "An interval of keys of a keyspace with map = \"range\": from <= key < to. Together they have every key once.",
    .rows = range_rows, .count = COUNT(range_rows), .size = sizeof(struct range_config),
    .line_offset = offsetof(struct range_config, line), .name_offset = -1,
};

static const struct setting_row lookup_rows[] = {
    {TEXT(struct lookup_config, table, "table", "1", "127"), REQUIRED, RELOAD,
     HELP("a table of this keyspace, named as there")},
    {TEXT(struct lookup_config, column, "column", "1", "63"), REQUIRED, RELOAD,
     HELP("column that statements ask by instead of the key; of type smallint, integer, bigint, uuid, text or varchar")},
    {BOOLEAN(struct lookup_config, unique, "unique"), DEFAULT("false"), RELOAD,
     HELP("a value is never on two shards: then one shard is asked, not all, for a value met before")},
};

static const struct setting_table lookup_table = {
    .noun = "lookup",
    .purpose = "A column of a sharded table by which the shard is found, too. Set up by pgshuntctl lookup create.",
    .rows = lookup_rows, .count = COUNT(lookup_rows), .size = sizeof(struct lookup_config),
    .line_offset = offsetof(struct lookup_config, line), .name_offset = -1,
};

static const struct setting_row keyspace_rows[] = {
    {TEXT(struct keyspace_config, name, "name", "1", "63"), REQUIRED, RELOAD,
     HELP("name of the keyspace")},
    {CHOICE(struct keyspace_config, type, "type", "bigint | uuid | text"), REQUIRED, RELOAD,
     HELP("type of the key; bigint is also for integer and smallint columns, text for varchar; of a key of several columns: of the first")},
    {STRINGS(struct keyspace_config, types, ntypes, "types"), DEFAULT("none"), RELOAD,
     HELP("types of the columns of a key that has several, up to 8: ( \"bigint\", \"bigint\" ); only with map = \"hash\"")},
    {CHOICE(struct keyspace_config, hash, "hash", "xxh64 | postgres"), DEFAULT("xxh64"), RELOAD,
     HELP("how a key finds its bucket; postgres: as Postgres' own hash partitioning, for data already split that way")},
    {CHOICE(struct keyspace_config, map, "map", "hash | list | range"), DEFAULT("hash"), RELOAD,
     HELP("how a key finds its shard: by its hash, by a list of values, or by intervals")},
    {OBJECTS(struct keyspace_config, lists, nlists, "lists", &list_table, "lists"), RANGE("0", "1024"), DEFAULT("none"), RELOAD,
     HELP("with map = \"list\": the values of each shard")},
    {TEXT(struct keyspace_config, rest, "default", "0", "63"), DEFAULT(""), RELOAD,
     HELP("with map = \"list\": shard of all values that are in no list; \"\": none, rows with such values are refused")},
    {OBJECTS(struct keyspace_config, ranges, nranges, "ranges", &range_table, "ranges"), RANGE("0", "10000"), DEFAULT("none"), RELOAD,
     HELP("with map = \"range\": the intervals, in any order")},
    {OBJECTS(struct keyspace_config, tables, ntables, "tables", &table_table, "tables"), RANGE("0", "10000"), DEFAULT("none"), RELOAD,
     HELP("the tables split by this key; rows with equal keys are on the same shard in all of them")},
    {OBJECTS(struct keyspace_config, lookups, nlookups, "lookup", &lookup_table, "lookups"), RANGE("0", "256"), DEFAULT("none"), RELOAD,
     HELP("other columns by which rows are asked for: pgshunt finds their shard")},
};

static const struct setting_table keyspace_table = {
    .noun = "keyspace",
    .purpose = "A way to split: tables that share one kind of key.",
    .rows = keyspace_rows, .count = COUNT(keyspace_rows), .size = sizeof(struct keyspace_config),
    .line_offset = offsetof(struct keyspace_config, line), .name_offset = offsetof(struct keyspace_config, name),
};

static const struct setting_row schema_rows[] = {
    {TEXT(struct schema_config, name, "name", "1", "63"), REQUIRED, RELOAD,
     HELP("name of the schema")},
    {TEXT(struct schema_config, shard, "shard", "1", "63"), REQUIRED, RELOAD,
     HELP("name of the shard that has it, with everything in it")},
};

static const struct setting_table schema_table = {
    .noun = "schema",
    .purpose = "A schema that lives on one shard: a customer's, for instance.",
    .rows = schema_rows, .count = COUNT(schema_rows), .size = sizeof(struct schema_config),
    .line_offset = offsetof(struct schema_config, line), .name_offset = offsetof(struct schema_config, name),
};

static const struct setting_row database_rows[] = {
    {TEXT(struct database_config, name, "name", "1", "63"), REQUIRED, RELOAD,
     HELP("name that clients connect to; pgshunt and pgbouncer are taken, by the console")},
    {TEXT(struct database_config, catalog, "catalog", "0", "63"), DEFAULT(""), RELOAD,
     HELP("shard that keeps the pgshunt schema; \"\": the first")},
    {TEXT(struct database_config, user, "user", "0", "63"), DEFAULT(""), RELOAD,
     HELP("log in to the servers as this user; \"\": as the client's user")},
    {STRING(struct database_config, password, "password"), DEFAULT(""), .secret = true, RELOAD,
     HELP("password of user; \"\": from the users file")},
    POOL_OVERRIDES(struct database_config),
    {INTEGER(struct database_config, max_connections, "max_connections"), INHERIT("limits.max_database_connections"), RANGE("0", "1000000"), RELOAD,
     HELP("server connections of all users and nodes together; 0: no limit")},
    {INTEGER(struct database_config, max_clients, "max_clients"), INHERIT("limits.max_database_clients"), RANGE("0", "1000000"), RELOAD,
     HELP("clients of this database; one more is refused with 53300; 0: no limit")},
    {TEXT(struct database_config, auth_query_user, "auth_user", "0", "63"), DEFAULT(""), RELOAD,
     HELP("user that looks users up for this database; \"\": auth.query_user")},
    {STRING(struct database_config, auth_query_password, "auth_password"), DEFAULT(""), .secret = true, RELOAD,
     HELP("password of auth_user; \"\": from the users file")},
    {STRING(struct database_config, auth_query_dbname, "auth_dbname"), DEFAULT(""), RELOAD,
     HELP("database on the servers that the look-up runs in; \"\": auth.query_dbname")},
    {STRING(struct database_config, auth_query, "auth_query"), DEFAULT(""), RELOAD,
     HELP("finds a user; \"\": auth.query")},
    {OBJECTS(struct database_config, shards, nshards, "shards", &shard_table, "shards"), RANGE("1", "1024"), REQUIRED, RELOAD,
     HELP("where the data is; one shard: an ordinary, unsharded database")},
    {OBJECTS(struct database_config, keyspaces, nkeyspaces, "keyspaces", &keyspace_table, "keyspaces"), RANGE("0", "64"), DEFAULT("none"), RELOAD,
     HELP("which tables are split, and by what")},
    {STRINGS(struct database_config, reference, nreference, "reference"), DEFAULT("none"), RELOAD,
     HELP("tables with a full copy on every shard")},
    {OBJECTS(struct database_config, schemas, nschemas, "schemas", &schema_table, "schemas"), RANGE("0", "100000"), DEFAULT("none"), RELOAD,
     HELP("schemas that live on one shard each")},
};

static const struct setting_table database_table = {
    .noun = "database",
    .purpose = "What a client connects to as if it were one database of one Postgres.",
    .rows = database_rows, .count = COUNT(database_rows), .size = sizeof(struct database_config),
    .line_offset = offsetof(struct database_config, line), .name_offset = offsetof(struct database_config, name),
    .check = config_check_database,
};

/* Rows of one group stand together; `databases`, the only one that is no single value, is the last. */
static const struct setting_row main_rows[] = {
    {TEXT(struct config, listen_address, "listen.address", "1", "255"), DEFAULT("127.0.0.1"), RESTART,
     HELP("addresses and names to listen on for clients, with commas between; each address that a name stands for; *: all")},
    {INTEGER(struct config, listen_port, "listen.port"), DEFAULT("6432"), RANGE("1", "65535"), RESTART,
     HELP("port to listen on for clients")},
    {INTEGER(struct config, primary_port, "listen.primary_port"), DEFAULT("0"), RANGE("0", "65535"), RESTART,
     HELP("one more port, whose clients are on primaries whatever they ask; 0: none")},
    {INTEGER(struct config, replica_port, "listen.replica_port"), DEFAULT("0"), RANGE("0", "65535"), RESTART,
     HELP("one more port, whose clients are on replicas whatever they ask: what is known to write is refused, and so is everything while no replica qualifies; 0: none")},
    {INTEGER(struct config, listen_backlog, "listen.backlog"), DEFAULT("1024"), RANGE("1", "65535"), RESTART,
     HELP("connections the kernel keeps waiting for a worker to accept them")},
    {TEXT(struct config, unix_socket_dir, "listen.unix_socket_dir", "0", "107"), DEFAULT(""), RESTART,
     HELP("directory for a unix socket .s.PGSQL.<listen.port> and its lock file, for clients on this machine; \"\": no unix socket")},
    {TEXT(struct config, unix_socket_mode, "listen.unix_socket_mode", "1", "4"), DEFAULT("0777"), RESTART,
     HELP("permissions of the unix socket, in octal; who may write may connect")},
    {TEXT(struct config, unix_socket_group, "listen.unix_socket_group", "0", "63"), DEFAULT(""), RESTART,
     HELP("group that the unix socket is given to, a name or a number; \"\": the process' own")},
    {BOOLEAN(struct config, tcp.keepalive, "tcp.keepalive"), DEFAULT("true"), RELOAD,
     HELP("probe quiet connections, so that those whose other end has vanished are noticed; this group is about connections with clients and with servers that begin after a reload")},
    {DURATION(struct config, tcp.keepalive_idle, "tcp.keepalive_idle"), DEFAULT("0s"), RANGE("0s", "9h"), RELOAD,
     HELP("probes begin when a connection has been quiet for this long, in whole seconds; 0s: as the system has it, mostly 2h")},
    {DURATION(struct config, tcp.keepalive_interval, "tcp.keepalive_interval"), DEFAULT("0s"), RANGE("0s", "9h"), RELOAD,
     HELP("time between probes, in whole seconds; 0s: as the system has it, mostly 75s")},
    {INTEGER(struct config, tcp.keepalive_count, "tcp.keepalive_count"), DEFAULT("0"), RANGE("0", "127"), RELOAD,
     HELP("probes without an answer that end a connection; 0: as the system has it, mostly 9")},
    {DURATION(struct config, tcp.user_timeout, "tcp.user_timeout"), DEFAULT("0s"), RANGE("0s", "1d"), RELOAD,
     HELP("a connection ends when what was sent has not been acknowledged for this long; 0s: as the system has it, mostly some 15min")},
    {TEXT(struct config, http_address, "http.address", "1", "255"), DEFAULT("127.0.0.1"), RESTART,
     HELP("addresses and names for metrics, health checks and the status page, with commas between, as listen.address")},
    {INTEGER(struct config, http_port, "http.port"), DEFAULT("9632"), .without_group = "0", RANGE("0", "65535"), RESTART,
     HELP("port for metrics, health checks and the status page; 0, and where there is no http group: none")},
    {INTEGER(struct config, workers, "workers"), DEFAULT("0"), RANGE("0", "128"), RESTART,
     HELP("worker threads; 0: one per core that is available")},
    {DURATION(struct config, shutdown_timeout, "shutdown_timeout"), DEFAULT("30s"), RANGE("0s", "1h"), RELOAD,
     HELP("how long SIGTERM lets running transactions finish")},
    {STRING(struct config, pid_file, "pid_file"), DEFAULT(""), RESTART,
     HELP("file that the process writes its pid to, as seen from the configuration file; \"\": none")},
    {TEXT(struct config, restart_socket, "restart.socket", "1", "100"), DEFAULT("auto"), RESTART,
     HELP("abstract unix socket over which --takeover finds the running process; auto: named by listen.address and listen.port; off: none, and several processes may listen on one port")},
    {DURATION(struct config, restart_patience, "restart.patience"), DEFAULT("1min"), RANGE("0s", "1d"), RELOAD,
     HELP("how long clients may stay with a process that another has taken over from; then running transactions get shutdown_timeout")},
    {CHOICE(struct config, auth_method, "auth.method", "trust | md5 | scram-sha-256 | password | hba | cert"), DEFAULT("scram-sha-256"), RELOAD,
     HELP("how clients prove who they are; trust: not at all; password: in clear text; hba: as auth.hba_file says; cert: by a certificate that names the user")},
    {STRING(struct config, hba_file, "auth.hba_file"), DEFAULT(""), RELOAD,
     HELP("file in the form of Postgres' pg_hba.conf, as seen from the configuration file; for method hba")},
    {STRING(struct config, ident_file, "auth.ident_file"), DEFAULT(""), RELOAD,
     HELP("file in the form of Postgres' pg_ident.conf, as seen from the configuration file; for rules of auth.hba_file with map=")},
    {STRING(struct config, users_file, "auth.users_file"), DEFAULT(""), RELOAD,
     HELP("file with users and their secrets, as seen from the configuration file; may be left out with methods trust and cert")},
    {DURATION(struct config, login_timeout, "auth.login_timeout"), DEFAULT("1min"), RANGE("1s", "10min"), RELOAD,
     HELP("a client that has not logged in by then is disconnected")},
    {DURATION(struct config, failure_delay, "auth.failure_delay"), DEFAULT("0s"), RANGE("0s", "1min"), RELOAD,
     HELP("a client with a wrong password is told so after this, which slows guessing down")},
    {TEXT(struct config, auth_query_user, "auth.query_user", "0", "63"), DEFAULT(""), RELOAD,
     HELP("user that looks up in the servers' catalog who is not in the users file; \"\": nobody is looked up")},
    {STRING(struct config, auth_query_password, "auth.query_password"), DEFAULT(""), .secret = true, RELOAD,
     HELP("password of auth.query_user; \"\": from the users file")},
    {STRING(struct config, auth_query_dbname, "auth.query_dbname"), DEFAULT(""), RELOAD,
     HELP("database on the servers that auth.query runs in; \"\": that of the first shard")},
    {STRING(struct config, auth_query, "auth.query"), DEFAULT(""), RELOAD,
     HELP("SQL that finds user $1: its name, its secret (NULL: no password login) and, if there is a third column, for how many seconds the password is valid (NULL: for ever); \"\": asks pg_authid")},
    {DURATION(struct config, auth_query_timeout, "auth.query_timeout"), DEFAULT("5s"), RANGE("10ms", "1min"), RELOAD,
     HELP("time a server has to accept the connection for auth.query, and to answer it")},
    {DURATION(struct config, auth_query_cache, "auth.query_cache"), DEFAULT("1min"), RANGE("0s", "1d"), RELOAD,
     HELP("how long a found secret is believed (not beyond VALID UNTIL); who is not found is looked up again after 2s")},
    {CHOICE(struct config, client_tls_mode, "client_tls.mode", "disable | allow | prefer | require | verify-ca | verify-full"), DEFAULT("disable"), RELOAD,
     HELP("TLS with clients; allow and prefer: if the client wants it; require: no client without it; verify-ca: and with a certificate that ca_file vouches for; verify-full: which names the user")},
    {STRING(struct config, client_tls.cert_file, "client_tls.cert_file"), DEFAULT(""), RELOAD,
     HELP("certificate shown to clients, with intermediate ones behind it; PEM" TLS_FILES_HELP)},
    {STRING(struct config, client_tls.key_file, "client_tls.key_file"), DEFAULT(""), RELOAD,
     HELP("private key of that certificate; PEM, readable by nobody else" TLS_FILES_HELP)},
    {STRING(struct config, client_tls.ca_file, "client_tls.ca_file"), DEFAULT(""), RELOAD,
     HELP("certificates that vouch for clients; PEM" TLS_FILES_HELP "; \"\": clients are not asked for a certificate")},
    {CHOICE(struct config, client_tls.min_version, "client_tls.min_version", "1.2 | 1.3"), DEFAULT("1.2"), RELOAD,
     HELP("oldest TLS version that clients may speak")},
    {CHOICE(struct config, client_tls.max_version, "client_tls.max_version", "1.2 | 1.3"), DEFAULT("1.3"), RELOAD,
     HELP("newest TLS version that clients may speak")},
    {STRING(struct config, client_tls.ciphers, "client_tls.ciphers"), DEFAULT("HIGH:!aNULL:!MD5:!3DES"), RELOAD,
     HELP("ciphers for TLS 1.2 with clients, in OpenSSL's notation")},
    {STRING(struct config, client_tls.ciphersuites, "client_tls.ciphersuites"), DEFAULT(""), RELOAD,
     HELP("cipher suites for TLS 1.3 with clients, in OpenSSL's notation; \"\": OpenSSL's own choice")},
    {CHOICE(struct config, server_tls.mode, "server_tls.mode", "disable | prefer | require | verify-ca | verify-full"), DEFAULT("disable"), RELOAD,
     HELP("TLS with servers, as libpq's sslmode; only verify-ca and verify-full protect from a false server")},
    {STRING(struct config, server_tls.tls.ca_file, "server_tls.ca_file"), DEFAULT(""), RELOAD,
     HELP("certificates that vouch for servers; PEM" TLS_FILES_HELP "; needed for verify-ca and verify-full")},
    {STRING(struct config, server_tls.tls.cert_file, "server_tls.cert_file"), DEFAULT(""), RELOAD,
     HELP("certificate shown to servers that ask for one; PEM" TLS_FILES_HELP)},
    {STRING(struct config, server_tls.tls.key_file, "server_tls.key_file"), DEFAULT(""), RELOAD,
     HELP("private key of that certificate; PEM, readable by nobody else" TLS_FILES_HELP)},
    {CHOICE(struct config, server_tls.tls.min_version, "server_tls.min_version", "1.2 | 1.3"), DEFAULT("1.2"), RELOAD,
     HELP("oldest TLS version spoken with servers")},
    {CHOICE(struct config, server_tls.tls.max_version, "server_tls.max_version", "1.2 | 1.3"), DEFAULT("1.3"), RELOAD,
     HELP("newest TLS version spoken with servers")},
    {STRING(struct config, server_tls.tls.ciphers, "server_tls.ciphers"), DEFAULT("HIGH:!aNULL:!MD5:!3DES"), RELOAD,
     HELP("ciphers for TLS 1.2 with servers, in OpenSSL's notation")},
    {STRING(struct config, server_tls.tls.ciphersuites, "server_tls.ciphersuites"), DEFAULT(""), RELOAD,
     HELP("cipher suites for TLS 1.3 with servers, in OpenSSL's notation; \"\": OpenSSL's own choice")},
    {CHOICE(struct config, server_tls.channel_binding, "server_tls.channel_binding", "disable | prefer | require"), DEFAULT("prefer"), RELOAD,
     HELP("tie SCRAM logins at servers to their TLS connection, as libpq's channel_binding; require: refuse servers that cannot")},
    {CHOICE(struct config, pool.mode, "pool.mode", POOL_MODES), DEFAULT("transaction"), RELOAD,
     HELP("how long a client keeps its server connection: to the end of the transaction, of the session, or of each statement (transaction blocks are refused then)")},
    {INTEGER(struct config, pool.size, "pool.size"), DEFAULT("20"), RANGE("1", "10000"), RELOAD,
     HELP("server connections per database, user and node")},
    {BOOLEAN(struct config, expect_last_value, "pool.expect_last_value"), DEFAULT("false"), RELOAD,
     HELP("take it as known that applications call currval() or lastval() after an INSERT outside a transaction, instead of learning it from the first that does")},
    {BOOLEAN(struct config, pin_notice, "pool.pin_notice"), DEFAULT("false"), RELOAD,
     HELP("tell a client, with one NOTICE in a session, that it keeps a server connection for itself")},
    {CHOICE(struct config, listen_lost, "pool.listen_lost", "warn | close"), DEFAULT("warn"), RELOAD,
     HELP("what clients get when the connection that listens for them was lost: a warning that notifications may be missing, or closed")},
    {STRING(struct config, pin_functions, "pool.pin_functions"), DEFAULT(""), RELOAD,
     HELP("functions that leave something behind in a session, as \"name, schema.name\": who calls one keeps its server connection")},
    {INTEGER(struct config, pool.min_size, "pool.min_size"), DEFAULT("0"), RANGE("0", "10000"), RELOAD,
     HELP("server connections per database, user and node that are kept open, once there has been one")},
    {INTEGER(struct config, pool.reserve_size, "pool.reserve_size"), DEFAULT("0"), RANGE("0", "10000"), RELOAD,
     HELP("more server connections per database, user and node for clients that have waited for pool.reserve_timeout")},
    {DURATION(struct config, pool.reserve_timeout, "pool.reserve_timeout"), DEFAULT("5s"), RANGE("0s", "1d"), RELOAD,
     HELP("a client that has waited so long may have a reserve connection; 0s: none may")},
    {DURATION(struct config, pool.server_idle_timeout, "pool.server_idle_timeout"), DEFAULT("10min"), RANGE("0s", "30d"), RELOAD,
     HELP("a server connection unused for so long is closed, down to the minimum; 0s: never")},
    {DURATION(struct config, pool.server_lifetime, "pool.server_lifetime"), DEFAULT("1h"), RANGE("0s", "30d"), RELOAD,
     HELP("a server connection older than that, or than up to a fifth less (so that not all end at once), is closed when it is free; 0s: never")},
    {BOOLEAN(struct config, server_round_robin, "pool.server_round_robin"), DEFAULT("false"), RELOAD,
     HELP("use idle server connections in turn; false: the one used last first, so that those too many grow old and are closed")},
    {DURATION(struct config, server_check_delay, "pool.server_check_delay"), DEFAULT("30s"), RANGE("0s", "1d"), RELOAD,
     HELP("a server connection unused for so long is tested by an empty query before a client gets it; 0s: never tested")},
    {STRING(struct config, reset_query, "pool.reset_query"), DEFAULT("DISCARD ALL"), RELOAD,
     HELP("what a server connection runs when the client that had it to itself (pool.mode session) has left; \"\": nothing")},
    {INTEGER(struct config, max_prepared_statements, "pool.max_prepared_statements"), DEFAULT("200"), RANGE("1", "100000"), RELOAD,
     HELP("prepared statements kept on a server connection; one more closes the least recently used")},
    {DURATION(struct config, connect_timeout, "pool.connect_timeout"), DEFAULT("15s"), RANGE("10ms", "10min"), RELOAD,
     HELP("time a server has to accept a connection and finish the login")},
    {DURATION(struct config, login_retry, "pool.login_retry"), DEFAULT("1s"), RANGE("10ms", "1h"), RELOAD,
     HELP("pause after a failed login to a server; doubles with each failure in a row, a fifth more or less")},
    {DURATION(struct config, login_retry_max, "pool.login_retry_max"), DEFAULT("15s"), RANGE("10ms", "1h"), RELOAD,
     HELP("longest pause after failed logins; cut short when the monitor reaches the server again")},
    {INTEGER(struct config, max_logins, "pool.max_logins"), DEFAULT("32"), RANGE("0", "10000"), RELOAD,
     HELP("logins under way at once per node, of all workers; more wait their turn; 0: no limit")},
    {DURATION(struct config, pool.query_wait_timeout, "pool.query_wait_timeout"), DEFAULT("2min"), RANGE("0s", "1d"), RELOAD,
     HELP("a client that waits so long for a server connection gets an error; 0s: waits for ever")},
    {DURATION(struct config, pool.query_wait_notify, "pool.query_wait_notify"), DEFAULT("5s"), RANGE("0s", "1d"), RELOAD,
     HELP("a client that waits so long for a server connection is told so by a NOTICE; 0s: never")},
    {DURATION(struct config, pool.client_idle_timeout, "timeouts.client_idle"), DEFAULT("0s"), RANGE("0s", "30d"), RELOAD,
     HELP("a client that asks nothing for so long, outside a transaction, is disconnected (57P05); 0s: never")},
    {DURATION(struct config, pool.idle_transaction_timeout, "timeouts.idle_transaction"), DEFAULT("0s"), RANGE("0s", "30d"), RELOAD,
     HELP("a client that asks nothing for so long in a transaction is disconnected (25P03) and the transaction rolled back; 0s: never")},
    {DURATION(struct config, pool.transaction_timeout, "timeouts.transaction"), DEFAULT("0s"), RANGE("0s", "30d"), RELOAD,
     HELP("a client whose transaction, or statement outside one, takes longer is disconnected (25P04) and the transaction rolled back; 0s: no limit")},
    {DURATION(struct config, pool.query_timeout, "timeouts.query"), DEFAULT("0s"), RANGE("0s", "30d"), RELOAD,
     HELP("a query that takes longer, waiting for a server connection included, is cancelled (57014); if it goes on for timeouts.cancel_wait, the client is disconnected; 0s: no limit")},
    {DURATION(struct config, cancel_wait_timeout, "timeouts.cancel_wait"), DEFAULT("10s"), RANGE("10ms", "10min"), RELOAD,
     HELP("time a cancel request has to reach a server, and a cancelled query to end")},
    {DURATION(struct config, pool.max_lag, "routing.max_lag"), DEFAULT("1s"), RANGE("0s", "7d"), RELOAD,
     HELP("reads go to a replica only while it is no further behind its primary")},
    {CHOICE(struct config, pool.no_replica, "routing.no_replica", NO_REPLICA_WORDS), DEFAULT("primary"), RELOAD,
     HELP("what becomes of reads while no replica answers and is within max_lag: they go to the primary; to the least lagged of the replicas that answer (else to the primary); or fail")},
    {CHOICE(struct config, pool.read_your_writes, "routing.read_your_writes", "off | on"), DEFAULT("on"), TRUTH("off", "on"), RELOAD,
     HELP("a client that has written reads from a replica only once it has replayed that write")},
    {CHOICE(struct config, pool.monotonic_reads, "routing.monotonic_reads", "off | on"), DEFAULT("on"), TRUTH("off", "on"), RELOAD,
     HELP("a client that has read goes to another replica only once that has replayed all the client may have seen")},
    {CHOICE(struct config, balance, "routing.balance", "least_outstanding | round_robin"), DEFAULT("least_outstanding"), RELOAD,
     HELP("how one of several replicas is picked, by weight: the less busy of two drawn at random, or in turn")},
    {INTEGER(struct config, region_spill, "routing.region_spill"), DEFAULT("0"), RANGE("0", "100000"), RELOAD,
     HELP("replicas of other regions join in while each of routing.region has so many connections in use per weight, counted by worker and pool; 0: only while none of routing.region can serve")},
    {DURATION(struct config, slow_start, "routing.slow_start"), DEFAULT("10s"), RANGE("0s", "1h"), RELOAD,
     HELP("a replica that was down gets its share of the reads little by little over so long; 0s: at once")},
    {CHOICE(struct config, pool.read_write_split, "routing.read_write_split", SPLIT_MODES), DEFAULT("aggressive"), TRUTH("off", "aggressive"), RELOAD,
     HELP("what may run on replicas; off (or false): nothing; conservative: only what declares that it reads: READ ONLY transactions, and what has route replica; aggressive (or true): also each statement outside a transaction block that is proven to be a read")},
    {CHOICE(struct config, pool.route, "routing.route", ROUTE_WORDS), DEFAULT("auto"), RELOAD,
     HELP("where statements run that do not say it themselves; auto: as read_write_split has it; primary; replica: also what is not proven to be a read, unless it is known to be none")},
    {TEXT(struct config, region, "routing.region", "0", "255"), DEFAULT(""), RELOAD,
     HELP("replicas of this region are read from first; \"\": no preference")},
    {DURATION(struct config, failover_wait, "routing.failover_wait"), DEFAULT("30s"), RANGE("0s", "1h"), RELOAD,
     HELP("how long statements not sent yet wait while no node can take them, as in a failover; 0s: they fail at once")},
    {CHOICE(struct config, multi_shard_commit, "routing.multi_shard_commit", "atomic | one_by_one"), DEFAULT("atomic"), RELOAD,
     HELP("how a transaction that wrote to several shards is committed; atomic: on all of them or on none, by two-phase commit, which needs max_prepared_transactions on every shard; one_by_one: on one after the other: a failure in between leaves it committed on some of them only")},
    {CHOICE(struct config, pool.require_key, "routing.require_key", REQUIRE_KEY_WORDS), DEFAULT("off"), TRUTH("off", "error"), RELOAD,
     HELP("what becomes of SELECT, UPDATE, DELETE and the like that run on every shard because no condition names the key of a sharded table; off: they run; warn: with a WARNING to the client and a line in the log; error: they are refused (42501)")},
    {INTEGER(struct config, semi_join_factor, "routing.semi_join_factor"), DEFAULT("4"), RANGE("0", "1000000"), RELOAD,
     HELP("when a query brings tables to one server, one that is expected to have this many times as many rows as there are values of a smaller one (fewer than 250 count as so many) comes without the rows that join none of these; 0: whatever is expected")},
    {DURATION(struct config, recover_after, "routing.recover_after"), DEFAULT("10s"), RANGE("100ms", "1h"), RELOAD,
     HELP("a transaction that is prepared for so long on a shard, but not finished, was left behind by a crash: it is committed or rolled back as was decided, and rolled back if nothing was")},
    {DURATION(struct config, shard_deadlock_timeout, "routing.shard_deadlock_timeout"), DEFAULT("1s"), RANGE("0s", "1h"), RELOAD,
     HELP("a statement of a transaction on several shards that waits for so long is looked at: where such transactions wait for each other, on one shard and on another, the youngest is ended (40P01); 0s: nobody looks")},
    {DURATION(struct config, lag_check_interval, "routing.lag_check_interval"), DEFAULT("100ms"), RANGE("10ms", "1min"), RELOAD,
     HELP("how often every node is asked for its role and WAL position")},
    {DURATION(struct config, check_timeout, "routing.check_timeout"), DEFAULT("1s"), RANGE("10ms", "1min"), RELOAD,
     HELP("a node that has not answered a check by then counts as down")},
    {INTEGER(struct config, health_fall, "health.fall"), DEFAULT("2"), RANGE("1", "100"), RELOAD,
     HELP("checks in a row without an answer that take a node out; a refused connection, or a server that says it is starting or stopping, does so at once")},
    {INTEGER(struct config, health_rise, "health.rise"), DEFAULT("2"), RANGE("1", "100"), RELOAD,
     HELP("checks in a row with an answer that bring a replica back that was taken out; a primary is back with the first")},
    {DURATION(struct config, health_down_interval, "health.down_interval"), DEFAULT("200ms"), RANGE("10ms", "1min"), RELOAD,
     HELP("how often a node that does not answer is tried again")},
    {INTEGER(struct config, breaker_failures, "health.breaker_failures"), DEFAULT("5"), RANGE("0", "10000"), RELOAD,
     HELP("failures within health.breaker_reset that open a node's circuit breaker: a replica gets no reads, a primary one login at a time; 0: never")},
    {DURATION(struct config, breaker_open, "health.breaker_open"), DEFAULT("30s"), RANGE("10ms", "1d"), RELOAD,
     HELP("how long a circuit breaker stays open before the node is tried again")},
    {DURATION(struct config, breaker_reset, "health.breaker_reset"), DEFAULT("1min"), RANGE("10ms", "1d"), RELOAD,
     HELP("failures of a node longer ago than that do not count for its circuit breaker")},
    {DURATION(struct config, dns_ttl, "health.dns_ttl"), DEFAULT("30s"), RANGE("100ms", "1d"), RELOAD,
     HELP("how often the names of nodes are looked up again; that of a node that is down: each second at least")},
    {CHOICE(struct config, catalog_map, "catalog.map", "recorded | configured"), DEFAULT("recorded"), RELOAD,
     HELP("which shard has which buckets of the keyspaces: as it is recorded in schema pgshunt on the catalog shard, where the configuration's shards and weights are written the first time and pgshuntctl reshard changes it; or as shards and weights say now, which no other proxy may contradict")},
    {DURATION(struct config, catalog_interval, "catalog.interval"), DEFAULT("2s"), RANGE("100ms", "1min"), RELOAD,
     HELP("how often the catalog is read, and told that this proxy is alive, where no notification came before")},
    {STRING(struct config, catalog_state_file, "catalog.state_file"), DEFAULT(""), RELOAD,
     HELP("file that keeps a copy of the last recorded maps, to start with while the catalog shard cannot be reached; as seen from the configuration file; \"\": none, the configuration's map is used then")},
    {STRING(struct config, partition_schedule, "partition.schedule"), DEFAULT("@hourly"), RELOAD,
     HELP("when tables with a policy (pgshuntctl partition) are maintained, by one proxy of all that do so: as in a crontab, in UTC; \"\": never, by this one")},
    {DURATION(struct config, partition_interval, "partition.interval"), DEFAULT("30s"), RANGE("100ms", "10min"), RELOAD,
     HELP("how often it is looked whether that is due")},
    {TEXT(struct config, partition_user, "partition.user", "0", "63"), DEFAULT(""), RELOAD,
     HELP("user who maintains partitions: the tables' owner, or a member of it; password from the users file; \"\": monitor.user")},
    {DURATION(struct config, partition_timeout, "partition.timeout"), DEFAULT("0s"), RANGE("0s", "7d"), RELOAD,
     HELP("so long may a run take: new partitions come first, and what is left then is told, and done by the next one; 0: no limit")},
    {BOOLEAN(struct config, reshard_daemon, "reshard.daemon"), DEFAULT("true"), RELOAD,
     HELP("run the jobs of resharding that pgshuntctl reshard run --detach leaves to the proxies: one proxy at a time runs a job, by a pgshuntctl that stands beside pgshunt")},
    {TEXT(struct config, monitor_user, "monitor.user", "1", "63"), DEFAULT("pgshunt"), RELOAD,
     HELP("user the monitor logs in to the servers as; needs pg_monitor to see replication lag")},
    {STRING(struct config, monitor_password, "monitor.password"), DEFAULT(""), .secret = true, RELOAD,
     HELP("password of monitor.user; \"\": from the users file")},
    {INTEGER(struct config, max_clients, "limits.max_clients"), DEFAULT("1000"), RANGE("1", "1000000"), RELOAD,
     HELP("client connections in all; one more is refused with 53300")},
    {INTEGER(struct config, max_server_connections, "limits.max_server_connections"), DEFAULT("0"), RANGE("0", "1000000"), RELOAD,
     HELP("server connections in all; when reached, unused ones of other pools make room; 0: no limit")},
    {INTEGER(struct config, max_node_connections, "limits.max_node_connections"), DEFAULT("0"), RANGE("0", "1000000"), RELOAD,
     HELP("connections to one server (host and port), whatever the database and user; 0: no limit")},
    {INTEGER(struct config, max_database_connections, "limits.max_database_connections"), DEFAULT("0"), RANGE("0", "1000000"), RELOAD,
     HELP("server connections of one database, all users and nodes; a database's max_connections counts before it; 0: no limit")},
    {INTEGER(struct config, max_user_connections, "limits.max_user_connections"), DEFAULT("0"), RANGE("0", "1000000"), RELOAD,
     HELP("server connections for one user, all databases and nodes; a user's max_connections counts before it; 0: no limit")},
    {INTEGER(struct config, max_database_clients, "limits.max_database_clients"), DEFAULT("0"), RANGE("0", "1000000"), RELOAD,
     HELP("clients of one database; a database's max_clients counts before it; 0: no limit")},
    {INTEGER(struct config, max_user_clients, "limits.max_user_clients"), DEFAULT("0"), RANGE("0", "1000000"), RELOAD,
     HELP("clients of one user; a user's max_clients counts before it; 0: no limit")},
    {INTEGER(struct config, max_replication, "limits.max_replication"), DEFAULT("20"), RANGE("0", "10000"), RELOAD,
     HELP("replication sessions in all; each has a server connection of its own, outside pool.size")},
    {SIZE(struct config, max_message, "limits.max_message"), DEFAULT("64MB"), RANGE("16kB", "1GB"), RELOAD,
     HELP("largest statement or set of parameters taken from a client")},
    {SIZE(struct config, max_notifications, "limits.notifications"), DEFAULT("1MB"), RANGE("16kB", "1GB"), RELOAD,
     HELP("notifications that may wait for one client, in bytes; one that lets more pile up is disconnected")},
    {INTEGER(struct config, max_groups, "limits.max_groups"), DEFAULT("1000000"), RANGE("1", "1000000000"), RELOAD,
     HELP("groups that a GROUP BY or DISTINCT over several shards may hold in memory")},
    {SIZE(struct config, max_gather, "limits.max_gather"), DEFAULT("1GB"), RANGE("0B", "1TB"), RELOAD,
     HELP("rows that one query may bring to one server from other shards, in bytes; more is refused with 53400; 0: no limit")},
    {INTEGER(struct config, semi_join_values, "limits.semi_join_values"), DEFAULT("10000"), RANGE("0", "1000000"), RELOAD,
     HELP("different values of a column that are sent along when the rows of another table are brought to one server, so that only those come which join them; with more the table comes whole; 0: always whole")},
    {INTEGER(struct config, lookup_cache, "limits.lookup_cache"), DEFAULT("100000"), RANGE("0", "100000000"), RELOAD,
     HELP("values of unique lookup columns whose shard is remembered, in all workers together; 0: none")},
    {INTEGER(struct config, client_statements, "limits.client_statements"), DEFAULT("10000"), RANGE("1", "1000000"), RELOAD,
     HELP("prepared statements a client may have at a time; one more is refused with 53400")},
    {SIZE(struct config, client_statement_memory, "limits.client_statement_memory"), DEFAULT("64MB"), RANGE("64kB", "16GB"), RELOAD,
     HELP("memory a client's prepared statements and portals may take; more is refused with 53400")},
    {CHOICE(struct config, log_level, "log.level", "debug | info | warning | error"), DEFAULT("info"), RELOAD,
     HELP("least severe lines that are logged")},
    {CHOICE(struct config, log_format, "log.format", "logfmt | json"), DEFAULT("logfmt"), RELOAD,
     HELP("form of the log lines on standard error")},
    {BOOLEAN(struct config, log_connections, "log.connections"), DEFAULT("true"), RELOAD,
     HELP("log each client's login and leave")},
    {OBJECTS(struct config, databases, ndatabases, "databases", &database_table, "databases"), RANGE("1", "1000"), REQUIRED, RELOAD,
     HELP("the databases clients may connect to: ( { name = \"app\"; shards = ( ... ); } )")},
};

const struct setting_table settings_main = {
    .noun = "configuration",
    .purpose = "The configuration file.",
    .rows = main_rows, .count = COUNT(main_rows), .size = sizeof(struct config),
    .line_offset = -1, .name_offset = -1,
    .check = config_check_main,
};

static const struct setting_row user_rows[] = {
    {TEXT(struct user_config, name, "name", "1", "63"), REQUIRED, RELOAD,
     HELP("name of the user")},
    {STRING(struct user_config, secret, "password"), DEFAULT(""), .secret = true, RELOAD,
     HELP("plain password, or a secret from pg_authid: \"SCRAM-SHA-256$...\" or \"md5...\"; \"\": cannot log in except with method trust")},
    {BOOLEAN(struct user_config, admin, "admin"), DEFAULT("false"), RELOAD,
     HELP("may connect to the console (database pgshunt)")},
    {BOOLEAN(struct user_config, stats, "stats"), DEFAULT("false"), RELOAD,
     HELP("may connect to the console and look at everything, but change nothing")},
    {STRINGS(struct user_config, certificates, ncertificates, "certificates"), DEFAULT("none"), RELOAD,
     HELP("names in certificates (common name or subject alternative name) that may log in as this user, for auth.method cert and client_tls.mode verify-full; none: the user's own name")},
    POOL_OVERRIDES(struct user_config),
    {INTEGER(struct user_config, max_connections, "max_connections"), INHERIT("limits.max_user_connections"), RANGE("0", "1000000"), RELOAD,
     HELP("server connections of all databases and nodes together; 0: no limit")},
    {INTEGER(struct user_config, max_clients, "max_clients"), INHERIT("limits.max_user_clients"), RANGE("0", "1000000"), RELOAD,
     HELP("clients of this user; one more is refused with 53300; 0: no limit")},
};

static const struct setting_table user_table = {
    .noun = "user",
    .purpose = "Someone who may log in.",
    .rows = user_rows, .count = COUNT(user_rows), .size = sizeof(struct user_config),
    .line_offset = offsetof(struct user_config, line), .name_offset = offsetof(struct user_config, name),
    .check = config_check_user,
};

static const struct setting_row users_file_rows[] = {
    {OBJECTS(struct config, users, nusers, "users", &user_table, "users"), RANGE("0", "1000000"), REQUIRED, RELOAD,
     HELP("the users: ( { name = \"app\"; password = \"...\"; } )")},
};

const struct setting_table settings_users = {
    .noun = "users file",
    .purpose = "The users file that auth.users_file names.",
    .rows = users_file_rows, .count = COUNT(users_file_rows), .size = sizeof(struct config),
    .line_offset = -1, .name_offset = -1,
};

/* clang-format on */

int settings_count(void)
{
    return COUNT(main_rows) - 1; /* without databases */
}

const struct setting_info *settings_info(int index)
{
    return &main_rows[index].info;
}

static int64_t number_in(const struct setting_row *row, const void *member)
{
    return row->width == sizeof(int64_t) ? *(const int64_t *)member : *(const int *)member;
}

void settings_row_value(const struct setting_row *row, const void *object, char *out, size_t size)
{
    const void *member = (const char *)object + row->offset;
    switch (row->kind) {
    case SETTING_INTEGER:
    case SETTING_DURATION:
    case SETTING_SIZE:
        config_number_format(row->kind, number_in(row, member), out, size);
        break;
    case SETTING_BOOLEAN:
        snprintf(out, size, "%s", *(const bool *)member ? "true" : "false");
        break;
    case SETTING_STRING: {
        const char *text = *(const char *const *)member;
        snprintf(out, size, "%s", row->secret && text[0] ? "***" : text);
        break;
    }
    case SETTING_CHOICE:
        config_choice_name(row->choices, (int)number_in(row, member), out, size);
        break;
    case SETTING_STRINGS:
    case SETTING_OBJECTS:
        snprintf(out, size, "%d", *(const int *)((const char *)object + row->count_offset));
        break;
    }
}

void settings_value(const struct config *config, int index, char *out, size_t size)
{
    settings_row_value(&main_rows[index], config, out, size);
}

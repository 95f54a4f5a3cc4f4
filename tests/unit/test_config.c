/* test_config.c: configuration files: what is read from them, and the exact words of each refusal. */
#include <sched.h>

#include "tests/unit/config_support.h"

/* ---- files that are refused ---- */

struct bad_case {
    const char *text;
    const char *error;
};

#define DURATION_WORDS "duration in quotes with a unit (ms, s, min, h, d), like \"250ms\", "

#define MAPS(text)                                                                                 \
    TRUST "databases = ( { name = \"app\"; shards = ( " SHARD " ); keyspaces = (\n"                \
          "{ name = \"k\"; type = \"bigint\"; tables = ( { name = \"t\"; key = \"id\"; } ); " text \
          "} ); } );\n"
static const struct bad_case bad_files[] = {
    /* syntax */
    {"listen = {\n", "test.conf:2: found a syntax error; allowed: name = value; name = { group }; "
                     "name = ( list ); with strings in \"quotes\""},
    {"\n\nlisten == 5;\n",
     "test.conf:3: found a syntax error; allowed: name = value; name = { group }; "
     "name = ( list ); with strings in \"quotes\""},
    {"workers = 1;\nworkers = 2;\n",
     "test.conf:2: found a duplicate setting name; allowed: each name once in a group"},
    {"databases = [ 1,\n \"a\" ];",
     "test.conf:2: found a mismatched element type in array; allowed: values of one type in an "
     "[ array ]; a ( list ) takes any"},
    {"# \"\n// \"\n/* \" \n */ a = \"x\n y",
     "test.conf:4: found a string that never ends; allowed: \"...\" (inside, \" is written \\\")"},
    {"workers = 1;\n/* text\n\n",
     "test.conf:2: found a comment that never ends; allowed: /* ... */"},
    {"workers = 4294967297;\n",
     "test.conf:1: found the number 4294967297, too large; allowed: integers up to 2147483647 "
     "(sizes and durations are text with a unit, like \"8GB\")"},
    {"workers = 0xFFFFFFFF1;\n",
     "test.conf:1: found the number 0xFFFFFFFF1, too large; allowed: integers up to 2147483647 "
     "(sizes and durations are text with a unit, like \"8GB\")"},
    {"workers = 99999999999999999999999L;\n",
     "test.conf:1: found the number 99999999999999999999999L, too large; allowed: integers up to "
     "2147483647 (sizes and durations are text with a unit, like \"8GB\")"},
    {"routing = {\n max_lag = 1s;\n};\n", "test.conf:2: found 1s without quotes; allowed: \"1s\""},
    {"listen = {\n address = 127.0.0.1;\n};\n",
     "test.conf:2: found 127.0.0.1 without quotes; allowed: \"127.0.0.1\""},
    {"@include 5\n", "test.conf:1: found @include without a file; allowed: @include \"file\""},
    {"\n@include \"a\nb\"\n",
     "test.conf:2: found @include without a file; allowed: @include \"file\""},
    {"\n\n@include \"/nonexistent/x.conf\"\n",
     "test.conf:3: found @include of /nonexistent/x.conf (No such file or directory); allowed: a "
     "readable file"},
    {"@include \"/tmp\"\n",
     "test.conf:1: found @include of /tmp (Is a directory); allowed: a readable file"},
    /* names */
    {TRUST "listne = { port = 1; };\n" DATABASE,
     "test.conf:2: found unknown setting listne (did you mean \"listen\"?); allowed here: listen, "
     "tcp, http, workers, shutdown_timeout, pid_file, restart, auth, client_tls, server_tls, pool, "
     "timeouts, routing, health, catalog, "
     "partition, reshard, monitor, "
     "limits, log, databases"},
    {TRUST "partition = { schedule = \"61 * * * *\"; };\n" DATABASE,
     "test.conf:2: found partition.schedule = \"61 * * * *\"; allowed: times as in a crontab "
     "(minute hour day month weekday), like \"0 * * * *\", \"@hourly\", \"@daily\", or \"\""},
    {TRUST "listen = {\n  address = \"x\";\n  prot = 1;\n};\n" DATABASE,
     "test.conf:4: found unknown setting listen.prot (did you mean \"port\"?); allowed here: "
     "address, port, primary_port, replica_port, backlog, unix_socket_dir, unix_socket_mode, "
     "unix_socket_group"},
    {TRUST "zzz = 1;\n" DATABASE,
     "test.conf:2: found unknown setting zzz; allowed here: listen, tcp, http, workers, "
     "shutdown_timeout, pid_file, restart, auth, client_tls, server_tls, pool, timeouts, routing, "
     "health, catalog, partition, reshard, monitor, limits, "
     "log, "
     "databases"},
    {TRUST "pool = { max_clients = 5; };\n",
     "test.conf:2: found unknown setting pool.max_clients (did you mean \"limits.max_clients\"?); "
     "allowed here: mode, size, expect_last_value, pin_notice, listen_lost, pin_functions, "
     "min_size, reserve_size, "
     "reserve_timeout, server_idle_timeout, "
     "server_lifetime, server_round_robin, server_check_delay, reset_query, "
     "max_prepared_statements, connect_timeout, "
     "login_retry, login_retry_max, max_logins, query_wait_timeout, query_wait_notify"},
    {TRUST "databases = ( { name = \"app\";\n shards = ( { name = \"s0\";\n nodes = ( { host = "
           "\"h\"; },\n { hots = \"x\"; } ); } ); } );\n",
     "test.conf:5: found unknown setting databases[0].shards[0].nodes[1].hots (did you mean "
     "\"host\"?); allowed here: host, port, region, weight"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD
           " ); keyspaces = ( { name = \"k\"; type = \"bigint\"; types = [ \"bigint\", \"text\" ]; "
           "tables = ( { name = \"t\"; key = \"a\"; } ); } ); } );\n",
     "test.conf:2: found a key that does not fit in keyspace \"k\"; allowed: tables with as many "
     "columns in key as there are types"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD
           " ); keyspaces = ( { name = \"k\"; type = \"bigint\"; tables = ( { name = \"t\"; key = "
           "[ \"a\", \"b\" ]; } ); } ); } );\n",
     "test.conf:2: found a key that does not fit in keyspace \"k\"; allowed: tables with as many "
     "columns in key as there are types"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD
           " ); keyspaces = ( { name = \"k\"; type = \"bigint\"; types = [ \"text\", \"bigint\" ]; "
           "tables = ( { name = \"t\"; key = [ \"a\", \"b\" ]; } ); } ); } );\n",
     "test.conf:2: found a key that does not fit in keyspace \"k\"; allowed: type as the first of "
     "types"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD
           " ); keyspaces = ( { name = \"k\"; type = \"bigint\"; types = [ \"bigint\", \"date\" ]; "
           "tables = ( { name = \"t\"; key = [ \"a\", \"b\" ]; } ); } ); } );\n",
     "test.conf:2: found a key that does not fit in keyspace \"k\"; allowed: types out of bigint, "
     "uuid and text"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD
           " ); keyspaces = ( { name = \"k\"; type = \"bigint\"; types = [ \"bigint\", \"text\" ]; "
           "tables = ( { name = \"t\"; key = [ \"a\", \"a\" ]; } ); } ); } );\n",
     "test.conf:2: found \"a\" twice in key; allowed: each column once"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD
           " ); schemas = ( { name = \"a\"; shard = \"nowhere\"; } ); } );\n",
     "test.conf:2: found shard \"nowhere\" for schema \"a\"; allowed: a shard of database \"app\""},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD
           " ); schemas = ( { name = \"public\"; shard = \"s0\"; } ); } );\n",
     "test.conf:2: found schema \"public\" in schemas; allowed: schemas of yours that are not on "
     "every shard"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD
           " ); reference = [ \"a.t\" ]; schemas = ( { name = \"a\"; shard = \"s0\"; } ); } );\n",
     "test.conf:2: found table \"a.t\" in keyspaces or reference, whose schema is in schemas; "
     "allowed: schemas whose tables are all on one shard"},
    {TRUST "databases = ( { name = \"app\"; shard = 1; } );\n",
     "test.conf:2: found unknown setting databases[0].shard (did you mean \"shards\"?); allowed "
     "here: name, catalog, user, password, pool_mode, pool_size, min_pool_size, "
     "reserve_pool_size, reserve_timeout, server_idle_timeout, server_lifetime, "
     "query_wait_timeout, query_wait_notify, client_idle_timeout, idle_transaction_timeout, "
     "transaction_timeout, query_timeout, read_write_split, route, region, max_lag, no_replica, "
     "read_your_writes, monotonic_reads, require_key, "
     "max_connections, max_clients, auth_user, "
     "auth_password, auth_dbname, auth_query, shards, keyspaces, reference, schemas"},
    /* types */
    {TRUST "listen = 5;\n",
     "test.conf:2: found listen = 5, an integer; allowed: a group: listen = { ... }"},
    {TRUST "listen = ( { port = 5; } );\n",
     "test.conf:2: found listen = ( ... ), a list; allowed: a group: listen = { ... }"},
    {TRUST "listen = { port = \"6432\"; };\n",
     "test.conf:2: found listen.port = \"6432\", a string; allowed: integer, 1 .. 65535"},
    {TRUST "listen = { port = 64.32; };\n",
     "test.conf:2: found listen.port = 64.32, a fraction; allowed: integer, 1 .. 65535"},
    {TRUST "listen = { port = true; };\n",
     "test.conf:2: found listen.port = true, a boolean; allowed: integer, 1 .. 65535"},
    {TRUST "listen = { address = 5; };\n",
     "test.conf:2: found listen.address = 5, an integer; allowed: string, 1 .. 255 bytes"},
    {TRUST "workers = { };\n",
     "test.conf:2: found workers = { ... }, a group; allowed: integer, 0 .. 128"},
    {TRUST "log = { connections = 1; };\n",
     "test.conf:2: found log.connections = 1, an integer; allowed: true, false"},
    {TRUST "log = { connections = \"true\"; };\n",
     "test.conf:2: found log.connections = \"true\", a string; allowed: true, false"},
    {TRUST "log = { level = 1; };\n",
     "test.conf:2: found log.level = 1, an integer; allowed: debug | info | warning | error"},
    {TRUST "routing = { max_lag = 5; };\n",
     "test.conf:2: found routing.max_lag = 5, an integer without a unit; allowed: " DURATION_WORDS
     "0s .. 7d"},
    {TRUST "routing = { max_lag = 0.5; };\n",
     "test.conf:2: found routing.max_lag = 0.5, a fraction without a unit; allowed: " DURATION_WORDS
     "0s .. 7d"},
    {TRUST "databases = 5;\n", "test.conf:2: found databases = 5, an integer; allowed: a list of "
                               "groups: ( { ... }, { ... } ), 1 .. 1000"},
    {TRUST "databases = { name = \"app\"; };\n",
     "test.conf:2: found databases = { ... }, a group; allowed: a list of groups: ( { ... }, { ... "
     "} ), 1 .. 1000"},
    {TRUST "databases = ( \"app\" );\n", "test.conf:2: found databases[0] = \"app\"; allowed: a "
                                         "list of groups: ( { ... }, { ... } ), 1 "
                                         ".. 1000"},
    {TRUST "databases = ( { name = \"a\"; shards = ( " SHARD
           " ); reference = ( \"x\",\n 5 ); } );\n",
     "test.conf:3: found databases[0].reference[1] = 5; allowed: a list of strings: ( \"a\", \"b\" "
     ")"},
    {TRUST "databases = ( { name = \"a\"; shards = ( " SHARD " ); reference = \"x\"; } );\n",
     "test.conf:2: found databases[0].reference = \"x\", a string; allowed: a list of strings: ( "
     "\"a\", \"b\" )"},
    /* values */
    {TRUST "listen = {\n\nport = 0; };\n",
     "test.conf:4: found listen.port = 0; allowed: integer, 1 .. 65535"},
    {TRUST "listen = { port = 70000; };\n",
     "test.conf:2: found listen.port = 70000; allowed: integer, 1 .. 65535"},
    {TRUST "listen = { port = -1; };\n",
     "test.conf:2: found listen.port = -1; allowed: integer, 1 .. 65535"},
    {TRUST "listen = { port = 4294973728L; };\n",
     "test.conf:2: found listen.port = 4294973728; allowed: integer, 1 .. 65535"},
    {TRUST "listen = { address = \"\"; };\n",
     "test.conf:2: found listen.address = \"\"; allowed: string, 1 .. 255 bytes"},
    {TRUST "routing = { max_lag = \"5\"; };\n",
     "test.conf:2: found routing.max_lag = \"5\"; allowed: " DURATION_WORDS "0s .. 7d"},
    {TRUST "routing = { max_lag = \"5 seconds\"; };\n",
     "test.conf:2: found routing.max_lag = \"5 seconds\"; allowed: " DURATION_WORDS "0s .. 7d"},
    {TRUST "routing = { max_lag = \"-1s\"; };\n",
     "test.conf:2: found routing.max_lag = \"-1s\"; allowed: " DURATION_WORDS "0s .. 7d"},
    {TRUST "routing = { read_write_split = \"yes\"; };\n",
     "test.conf:2: found routing.read_write_split = \"yes\"; allowed: off | conservative | "
     "aggressive"},
    {TRUST "routing = { read_write_split = 1; };\n",
     "test.conf:2: found routing.read_write_split = 1, an integer; allowed: off | conservative | "
     "aggressive"},
    {TRUST "routing = { route = false; };\n",
     "test.conf:2: found routing.route = false, a boolean; allowed: auto | primary | replica"},
    {TRUST "routing = { check_timeout = \"1ms\"; };\n",
     "test.conf:2: found routing.check_timeout = \"1ms\"; allowed: " DURATION_WORDS "10ms .. 1min"},
    {TRUST "limits = { max_message = \"2GB\"; };\n",
     "test.conf:2: found limits.max_message = \"2GB\"; allowed: size in quotes with a unit (B, kB, "
     "MB, GB, TB), like \"64MB\", 16kB .. 1GB"},
    {TRUST "log = { level = \"inof\"; };\n",
     "test.conf:2: found log.level = \"inof\" (did you mean \"info\"?); allowed: debug | info | "
     "warning | error"},
    {TRUST "log = { format = \"xml\"; };\n",
     "test.conf:2: found log.format = \"xml\"; allowed: logfmt | json"},
    {"auth = { method = \"scram\"; };\n",
     "test.conf:1: found auth.method = \"scram\" (did you mean \"scram-sha-256\"?); allowed: trust "
     "| md5 | scram-sha-256 | password | hba | cert"},
    {"auth = { method = \"cert\"; };\n" DATABASE,
     "test.conf:1: found auth.method = \"cert\" without TLS that asks clients for a certificate; "
     "allowed: client_tls.mode = \"require\" or more, with client_tls.ca_file"},
    {TRUST "client_tls = { mode = \"require\"; };\n" DATABASE,
     "test.conf:2: found client_tls.mode without client_tls.cert_file; allowed: cert_file and "
     "key_file, or mode = \"disable\""},
    {TRUST "client_tls = {\n  cert_file = \"a.crt\"; };\n" DATABASE,
     "test.conf:3: found client_tls.cert_file without client_tls.key_file; allowed: both or "
     "neither"},
    {TRUST
     "client_tls = { mode = \"verify-ca\"; cert_file = \"a\"; key_file = \"b\"; };\n" DATABASE,
     "test.conf:2: found client_tls.mode = \"verify-...\" without client_tls.ca_file; allowed: "
     "ca_file = \"ca.crt\" with the certificates that vouch for clients"},
    {TRUST "client_tls = { min_version = \"1.3\"; max_version = \"1.2\"; };\n" DATABASE,
     "test.conf:2: found client_tls.min_version above client_tls.max_version; allowed: "
     "min_version = \"1.2\" or max_version = \"1.3\""},
    {TRUST "server_tls = { mode = \"verify-full\"; };\n" DATABASE,
     "test.conf:2: found server_tls.mode = \"verify-...\" without server_tls.ca_file; allowed: "
     "ca_file = \"ca.crt\" with the certificates that vouch for servers"},
    {TRUST "server_tls = { channel_binding = \"require\"; };\n" DATABASE,
     "test.conf:2: found server_tls.channel_binding = \"require\" without TLS; allowed: "
     "server_tls.mode = \"require\" or more"},
    {"auth = {\nmethod = \"hba\"; };\n" DATABASE,
     "test.conf:2: found auth.method = \"hba\" without auth.hba_file; allowed: hba_file = "
     "\"pg_hba.conf\""},
    {"auth = {\nmethod = \"hba\";\nhba_file = \"/nonexistent/hba\"; };\n" DATABASE,
     "test.conf:3: found auth.hba_file = \"/nonexistent/hba\" (No such file or directory); "
     "allowed: a readable file"},
    {TRUST "pool = { mode = \"query | or\"; };\n",
     "test.conf:2: found pool.mode = \"query | or\"; allowed: transaction | session | "
     "statement"},
    /* a value is shown on one line, clipped between characters */
    {TRUST "log = { level = \"a\nb\tc\"; };\n",
     "test.conf:2: found log.level = \"a?b?c\"; allowed: debug | info | warning | error"},
    {TRUST
     "log = { level = "
     "\"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
     "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
     "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
     "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
     "\"; };\n",
     "test.conf:2: found log.level = "
     "\"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
     "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
     "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
     "\xc3\xa9\xc3\xa9\xc3\xa9...\"; allowed: debug | info | warning | error"},
    /* secrets are never shown */
    {TRUST "monitor = { password = 12345; };\n",
     "test.conf:2: found monitor.password = ***, an integer; allowed: string"},
    /* what is missing */
    {"", "test.conf: found no databases; required: the databases clients may connect to: ( { "
         "name = \"app\"; shards = ( ... ); } )"},
    {TRUST, "test.conf: found no databases; required: the databases clients may connect to: ( { "
            "name = \"app\"; shards = ( ... ); } )"},
    {TRUST "databases = ( );\n", "test.conf:2: found 0 databases in databases; allowed: 1 .. 1000"},
    {TRUST "databases = (\n { shards = ( " SHARD " ); } );\n",
     "test.conf:3: found databases[0] without name; required: name that clients connect to; "
     "pgshunt "
     "and pgbouncer are taken, by the console"},
    {TRUST "databases = (\n { name = \"app\"; } );\n",
     "test.conf:3: found databases[0] without shards; required: where the data is; one shard: an "
     "ordinary, unsharded database"},
    {TRUST "databases = ( { name = \"app\";\n shards = ( ); } );\n",
     "test.conf:3: found 0 shards in databases[0].shards; allowed: 1 .. 1024"},
    {TRUST "databases = ( { name = \"app\"; shards = (\n { name = \"s0\"; } ); } );\n",
     "test.conf:3: found databases[0].shards[0] without nodes; required: the primary and its "
     "replicas, in any order"},
    {TRUST
     "databases = ( { name = \"app\"; shards = ( { name = \"s0\"; nodes = (\n { port = 1; } ); "
     "} ); } );\n",
     "test.conf:3: found databases[0].shards[0].nodes[0] without host; required: host name or "
     "address of the server; a name is looked up again when a connection fails"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD " ); keyspaces = (\n"
           "{ name = \"k\"; type = \"bigint\"; tables = (\n { name = \"t\"; } ); } ); } );\n",
     "test.conf:4: found databases[0].keyspaces[0].tables[0] without key; required: column that "
     "holds the "
     "key; a list for a key of several columns, in the order of the keyspace's types"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD " ); keyspaces = (\n"
           "{ name = \"k\"; tables = ( { name = \"t\"; key = \"id\"; } ); } ); } );\n",
     "test.conf:3: found databases[0].keyspaces[0] without type; required: type of the key; bigint "
     "is also for integer and smallint columns, text for varchar; of a key of several columns: of "
     "the first"},
    {TRUST
     "databases = ( { name = \"app\"; shards = ( " SHARD " ); keyspaces = (\n"
     "{ name = \"k\"; type = \"int\"; tables = ( { name = \"t\"; key = \"id\"; } ); } ); } );\n",
     "test.conf:3: found databases[0].keyspaces[0].type = \"int\"; allowed: bigint | uuid | text"},
    /* keyspaces by list and by range */
    {MAPS("map = \"list\";"),
     "test.conf:3: found keyspace \"k\" with map = \"list\" and no values; allowed: lists = ( { "
     "shard = \"s1\"; values = [ \"...\" ]; } )"},
    {MAPS("map = \"list\"; lists = (\n{ shard = \"s9\"; values = [ \"1\" ]; } );"),
     "test.conf:4: found shard \"s9\", which is no shard of database \"app\"; allowed: s0"},
    {MAPS("map = \"list\"; lists = (\n{ shard = \"s0\"; values = [ \"one\" ]; } );"),
     "test.conf:4: found \"one\" as a key of keyspace \"k\"; allowed: a whole number in quotes"},
    {MAPS("map = \"list\"; lists = (\n{ shard = \"s0\"; values = [ \"1\", \"2\" ]; },\n{ shard = "
          "\"s0\"; values = [ \"+2\" ]; } );"),
     "test.conf:5: found a value twice in the lists of keyspace \"k\"; allowed: each value once"},
    {MAPS("map = \"list\"; lists = ( { shard = \"s0\"; values = [ \"1\" ]; } );\ndefault = \"x\";"),
     "test.conf:4: found shard \"x\", which is no shard of database \"app\"; allowed: s0"},
    {MAPS("map = \"range\";"),
     "test.conf:3: found keyspace \"k\" with map = \"range\" and no ranges; allowed: ranges = ( { "
     "to = \"1000\"; shard = \"s0\"; }, { from = \"1000\"; shard = \"s1\"; } )"},
    {MAPS("map = \"range\"; ranges = (\n{ from = \"5\"; to = \"5\"; shard = \"s0\"; } );"),
     "test.conf:4: found a range from \"5\" to \"5\" in keyspace \"k\", which holds no key; "
     "allowed: from below to"},
    {MAPS("map = \"range\"; ranges = (\n{ from = \"10\"; shard = \"s0\"; },\n{ to = \"9\"; shard = "
          "\"s0\"; } );"),
     "test.conf:4: found a range from \"10\" in keyspace \"k\", where the one before it ends at "
     "\"9\": keys between them have no shard; allowed: each range begins where another ends"},
    {MAPS("map = \"range\"; ranges = (\n{ from = \"9\"; shard = \"s0\"; },\n{ to = \"10\"; shard = "
          "\"s0\"; } );"),
     "test.conf:4: found a range from \"9\" in keyspace \"k\", where the one before it ends at "
     "\"10\": they overlap; allowed: each range begins where another ends"},
    {MAPS("map = \"range\"; ranges = (\n{ shard = \"s0\"; }, { shard = \"s0\"; } );"),
     "test.conf:4: found a range from \"MINVALUE\" in keyspace \"k\", where the one before it ends "
     "at \"MAXVALUE\": they overlap; allowed: each range begins where another ends"},
    {MAPS("map = \"range\"; ranges = (\n{ from = \"-5\"; shard = \"s0\"; } );"),
     "test.conf:4: found \"-5\" as the lowest begin of a range in keyspace \"k\": keys below have "
     "no shard; allowed: one range from \"MINVALUE\""},
    {MAPS("map = \"range\"; ranges = (\n{ to = \"-5\"; shard = \"s0\"; } );"),
     "test.conf:4: found \"-5\" as the highest end of a range in keyspace \"k\": keys above have "
     "no shard; allowed: one range to \"MAXVALUE\""},
    {MAPS("lists = ( { shard = \"s0\"; values = [ \"1\" ]; } );"),
     "test.conf:3: found lists in keyspace \"k\", which has map = \"hash\"; allowed: hash"},
    {MAPS("map = \"list\";\nhash = \"postgres\"; lists = ( { shard = \"s0\"; values = [ \"1\" ]; } "
          ");"),
     "test.conf:4: found hash in keyspace \"k\", which has map = \"list\"; allowed: lists and "
     "default"},
    /* names that are taken */
    {TRUST "databases = (\n{ name = \"app\"; shards = ( " SHARD
           " ); },\n{ name = \"app\"; shards = ( " SHARD " ); } );\n",
     "test.conf:4: found a second database \"app\" (the first: test.conf:3); allowed: each "
     "database "
     "name once"},
    {TRUST "databases = ( { name = \"app\"; shards = (\n" SHARD ",\n" SHARD " ); } );\n",
     "test.conf:4: found a second shard \"s0\" (the first: test.conf:3); allowed: each shard name "
     "once"},
    {TRUST "databases = ( { name = \"app\"; shards = ( { name = \"s0\"; nodes = (\n{ host = \"h\"; "
           "},\n{ host = \"i\"; },\n{ host = \"h\"; port = 5432; } ); } ); } );\n",
     "test.conf:5: found a second node \"h:5432\" (the first: test.conf:3); allowed: each server "
     "once in a shard"},
    {TRUST "databases = ( { name = \"app\"; shards = (\n{ name = \"s0\"; " NODE " },\n"
           "{ name = \"s1\"; dbname = \"app\"; " NODE " } ); } );\n",
     "test.conf:4: found a second node \"h:5432/app\" (the first: test.conf:3); allowed: each "
     "database of a server in one shard only"},
    {TRUST
     "databases = ( { name = \"app\"; shards = ( " SHARD " ); keyspaces = (\n"
     "{ name = \"a\"; type = \"bigint\"; tables = ( { name = \"t\"; key = \"id\"; } ); },\n"
     "{ name = \"b\"; type = \"uuid\"; tables = ( { name = \"t\"; key = \"id\"; } ); } ); } );\n",
     "test.conf:4: found a second table \"t\" (the first: test.conf:3); allowed: each table once, "
     "in "
     "one keyspace or in reference"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD " ); keyspaces = (\n"
           "{ name = \"a\"; type = \"bigint\"; tables = ( { name = \"t\"; key = \"id\"; } ); } );\n"
           "reference = ( \"u\", \"t\" ); } );\n",
     "test.conf:4: found a second table \"t\" (the first: test.conf:3); allowed: each table once, "
     "in "
     "one keyspace or in reference"},
    {TRUST "databases = ( { name = \"app\"; shards = ( " SHARD " ); keyspaces = (\n"
           "{ name = \"a\"; type = \"bigint\"; tables = (\n{ name = \"t\"; key = \"id\"; },\n"
           "{ name = \"t\"; key = \"x\"; } ); } ); } );\n",
     "test.conf:5: found a second table \"t\" (the first: test.conf:4); allowed: each table name "
     "once"},
    {TRUST
     "databases = ( { name = \"app\"; shards = ( " SHARD " ); keyspaces = (\n"
     "{ name = \"a\"; type = \"bigint\"; tables = ( { name = \"t\"; key = \"id\"; } ); },\n"
     "{ name = \"a\"; type = \"uuid\"; tables = ( { name = \"u\"; key = \"id\"; } ); } ); } );\n",
     "test.conf:4: found a second keyspace \"a\" (the first: test.conf:3); allowed: each keyspace "
     "name once"},
    {TRUST "databases = ( {\nname = \"pgshunt\"; shards = ( " SHARD " ); } );\n",
     "test.conf:3: found database \"pgshunt\", which is the console's name; allowed: any other"},
    {TRUST "databases = ( {\nname = \"pgbouncer\"; shards = ( " SHARD " ); } );\n",
     "test.conf:3: found database \"pgbouncer\", which is the console's name; allowed: any other"},
    /* one setting against another */
    {TRUST "databases = ( { name = \"app\";\ncatalog = \"s9\"; shards = ( " SHARD
           ",\n{ name = \"s1\"; "
           "nodes = ( { host = \"i\"; } ); } ); } );\n",
     "test.conf:3: found catalog = \"s9\", which is no shard of database \"app\"; allowed: s0, s1"},
    {TRUST "databases = ( { name = \"app\";\nshards = (\n{ name = \"s0\"; weight = 0; " NODE
           " } ); } );\n",
     "test.conf:3: found weight = 0 in all shards of database \"app\"; allowed: at least one shard "
     "with a weight above 0, to hold the data"},
    {TRUST "databases = ( { name = \"app\";\npassword = \"topsecret\"; shards = ( " SHARD
           " ); } );\n",
     "test.conf:3: found database \"app\" with a password but no user; allowed: both, or user "
     "alone "
     "with the password in the users file"},
    {"\nauth = {\n};\n" DATABASE,
     "test.conf:2: found auth.method = \"scram-sha-256\" without auth.users_file; allowed: "
     "users_file = \"users.conf\" with users and their secrets, query_user = \"...\" to look them "
     "up "
     "in the servers, or method = \"trust\""},
    {"auth = {\nmethod = \"md5\"; };\n" DATABASE,
     "test.conf:2: found auth.method = \"md5\" without auth.users_file; allowed: users_file = "
     "\"users.conf\" with users and their secrets, query_user = \"...\" to look them up in the "
     "servers, or method = \"trust\""},
    {TRUST "http = {\nport = 6432; };\n" DATABASE,
     "test.conf:3: found http.port = 6432, the same as listen.port; allowed: another port"},
    {"auth = {\nusers_file = \"/nonexistent/users.conf\"; };\n" DATABASE,
     "test.conf:2: found auth.users_file = \"/nonexistent/users.conf\" (No such file or "
     "directory); allowed: a readable file"},
};

static void test_refused_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++)
        check_refused(bad_files[i].text, bad_files[i].error);
}

static void test_nul_byte(void **state)
{
    (void)state;
    struct config_error error;
    static const char text[] = "workers = 1;\n\nworkers\0 = 2;";
    assert_null(config_load_text("test.conf", text, sizeof text - 1, &error));
    assert_string_equal(error.text, "test.conf:3: found a NUL byte; allowed: text in UTF-8");
}

static void test_unreadable_file(void **state)
{
    (void)state;
    struct config_error error;
    assert_null(config_load("/nonexistent/pgshunt.conf", &error));
    assert_string_equal(error.text,
                        "/nonexistent/pgshunt.conf: found no such file; allowed: a readable file");
    assert_null(config_load("/tmp", &error));
    assert_string_equal(error.text, "/tmp: found a directory; allowed: a readable file");
}

/* Deep nesting, long names and long values end in an error that fits, not in a crash. */
static void test_hostile_text(void **state)
{
    (void)state;
    struct config_error error;
    size_t size = 200000;
    char *text = malloc(size + 1);
    static const char fillers[] = {'(', '{', 'a', '"', '1', '[', '\n', '#', '@', '\\'};
    for (size_t i = 0; i < sizeof fillers; i++) {
        memset(text, fillers[i], size);
        memcpy(text, "a = ", 4);
        text[size] = 0;
        assert_null(config_load_text("test.conf", text, size, &error));
        assert_memory_equal(error.text, "test.conf", 9);
        memset(text, fillers[i], size);
        memcpy(text, TRUST "log = { level = \"", sizeof(TRUST "log = { level = \"") - 1);
        assert_null(config_load_text("test.conf", text, size, &error));
        assert_true(strlen(error.text) < sizeof error.text);
    }
    free(text);
}

/* ---- files that are accepted ---- */

static const char everything[] =
    "listen = { address = \"::\"; port = 7000; backlog = 7; };\n"
    "http = { address = \"0.0.0.0\"; port = 7001; };\n"
    "workers = 3;\n"
    "shutdown_timeout = \"5s\";\n"
    "auth = { method = \"trust\"; login_timeout = \"2s\"; };\n"
    "pool = { mode = \"transaction\"; size = 5; server_idle_timeout = \"0s\";\n"
    "  server_lifetime = \"2h\"; connect_timeout = \"3s\"; query_wait_timeout = \"4s\"; };\n"
    "routing = { max_lag = \"1500ms\"; read_your_writes = false; read_write_split = FALSE;\n"
    "  lag_check_interval = \"50ms\"; check_timeout = \"2s\"; };\n"
    "monitor = { user = \"mon\"; password = \"s3cret\"; };\n"
    "limits = { max_clients = 77; max_replication = 3; max_message = \"1MB\"; max_groups = 0x10; "
    "};\n"
    "log = { level = \"debug\"; format = \"json\"; connections = false; };\n"
    "databases = (\n"
    "  { name = \"app\"; catalog = \"s1\"; user = \"u\"; password = \"p\"; pool_size = 9;\n"
    "    shards = (\n"
    "      { name = \"s0\"; dbname = \"app0\"; weight = 3;\n"
    "        nodes = ( { host = \"a\"; port = 5501; },\n"
    "                  { host = \"b\"; port = 5601; region = \"eu\"; weight = 0; } ); },\n"
    "      { name = \"s1\"; nodes = ( { host = \"c\"; } ); }\n"
    "    );\n"
    "    keyspaces = (\n"
    "      { name = \"users\"; type = \"uuid\"; hash = \"postgres\";\n"
    "        tables = ( { name = \"users\"; key = \"id\"; },\n"
    "                   { name = \"shop.orders\"; key = \"user_id\"; } ); },\n"
    "      { name = \"names\"; type = \"text\"; tables = ( { name = \"n\"; key = \"n\"; } ); }\n"
    "    );\n"
    "    reference = [ \"countries\", \"currencies\" ];\n"
    "  },\n"
    "  { name = \"other\"; shards = ( { name = \"s0\"; nodes = ( { host = \"a\"; } ); } ); }\n"
    ");\n";

static void check_scalars(const struct config *config)
{
    assert_string_equal(config->path, "test.conf");
    assert_string_equal(config->listen_address, "::");
    assert_int_equal(config->listen_port, 7000);
    assert_int_equal(config->listen_backlog, 7);
    assert_string_equal(config->http_address, "0.0.0.0");
    assert_int_equal(config->http_port, 7001);
    assert_int_equal(config->workers, 3);
    assert_int_equal(config->shutdown_timeout, 5000);
    assert_int_equal(config->auth_method, AUTH_TRUST);
    assert_string_equal(config->users_file, "");
    assert_int_equal(config->login_timeout, 2000);
    assert_int_equal(config->pool.mode, POOL_TRANSACTION);
    assert_int_equal(config->pool.size, 5);
    assert_int_equal(config->pool.server_idle_timeout, 0);
    assert_int_equal(config->pool.server_lifetime, 7200000);
    assert_int_equal(config->connect_timeout, 3000);
    assert_int_equal(config->pool.query_wait_timeout, 4000);
    assert_int_equal(config->pool.max_lag, 1500);
    assert_false(config->pool.read_your_writes);
    assert_int_equal(config->pool.read_write_split, SPLIT_OFF);
    assert_int_equal(config->lag_check_interval, 50);
    assert_int_equal(config->check_timeout, 2000);
    assert_string_equal(config->monitor_user, "mon");
    assert_string_equal(config->monitor_password, "s3cret");
    assert_int_equal(config->max_clients, 77);
    assert_int_equal(config->max_message, 1 << 20);
    assert_int_equal(config->max_replication, 3);
    assert_int_equal(config->max_groups, 16);
    assert_int_equal(config->log_level, LOG_DEBUG);
    assert_int_equal(config->log_format, LOG_FORMAT_JSON);
    assert_false(config->log_connections);
    check_value(config, "monitor.password", "***");
    check_value(config, "routing.max_lag", "1500ms");
    check_value(config, "limits.max_message", "1MB");
    check_value(config, "log.format", "json");
    check_value(config, "log.connections", "false");
}

static void check_shards(const struct database_config *app)
{
    assert_int_equal(app->nshards, 2);
    const struct shard_config *s0 = &app->shards[0], *s1 = &app->shards[1];
    assert_string_equal(s0->name, "s0");
    assert_string_equal(s0->dbname, "app0");
    assert_int_equal(s0->weight, 3);
    assert_int_equal(s0->line, 16);
    assert_int_equal(s0->nnodes, 2);
    assert_string_equal(s0->nodes[0].host, "a");
    assert_int_equal(s0->nodes[0].port, 5501);
    assert_string_equal(s0->nodes[0].region, "");
    assert_int_equal(s0->nodes[0].weight, 1);
    assert_int_equal(s0->nodes[0].line, 17);
    assert_string_equal(s0->nodes[1].region, "eu");
    assert_int_equal(s0->nodes[1].weight, 0);
    assert_int_equal(s0->nodes[1].line, 18);
    assert_string_equal(s1->dbname, "app");
    assert_int_equal(s1->weight, 1);
    assert_int_equal(s1->nodes[0].port, 5432);
}

static void check_keyspaces(const struct database_config *app)
{
    assert_int_equal(app->nkeyspaces, 2);
    const struct keyspace_config *users = &app->keyspaces[0], *names = &app->keyspaces[1];
    assert_string_equal(users->name, "users");
    assert_int_equal(users->type, KEY_UUID);
    assert_int_equal(users->hash, HASH_POSTGRES);
    assert_int_equal(users->ntables, 2);
    assert_string_equal(users->tables[1].name, "shop.orders");
    assert_string_equal(users->tables[1].key, "user_id");
    assert_int_equal(users->tables[1].line, 24);
    assert_int_equal(names->type, KEY_TEXT);
    assert_int_equal(names->hash, HASH_XXH64);
    assert_int_equal(app->nreference, 2);
    assert_string_equal(app->reference[0], "countries");
    assert_string_equal(app->reference[1], "currencies");
}

static void test_everything(void **state)
{
    (void)state;
    struct config *config = load_text(everything);
    check_scalars(config);
    assert_int_equal(config->ndatabases, 2);
    const struct database_config *app = config_database(config, "app");
    assert_non_null(app);
    assert_string_equal(app->catalog, "s1");
    assert_string_equal(app->user, "u");
    assert_string_equal(app->password, "p");
    assert_int_equal(app->pool.size, 9);
    assert_int_equal(app->line, 14);
    check_shards(app);
    check_keyspaces(app);
    const struct database_config *other = config_database(config, "other");
    assert_string_equal(other->catalog, "s0");
    assert_int_equal(other->nkeyspaces, 0);
    assert_int_equal(other->nreference, 0);
    assert_null(config_database(config, "nobody"));
    assert_null(config_user(config, "nobody"));
    config_free(config);
    config_free(NULL);
}

static void test_workers_default(void **state)
{
    (void)state;
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    struct config *config = load_text(TRUST DATABASE);
    assert_int_equal(config->workers, CPU_COUNT(&set));
    config_free(config);
}

/* Text that looks wrong but is not. */
static void test_odd_but_good(void **state)
{
    (void)state;
    config_free(load_text(
        "# 99999999999 \"\n// 5ms @include \"/nonexistent\"\n/* 4294967297 \" */\n" TRUST
        "monitor : { user = \"99999999999 5ms // # /* \\\" @include\" \"s\", };\n" DATABASE));
    config_free(load_text(TRUST "listen = { port = 6432L; backlog = 0x10 }\n" DATABASE));
    struct config *config = load_text("/* a\n\n */ " TRUST "\r\n" DATABASE);
    assert_int_equal(config->databases[0].line, 5);
    config_free(config);
}

/* ---- several files ---- */

/* The path of the temporary folder for each %s. */
static void expand(const char *text, char *out, size_t size)
{
    size_t used = 0;
    while (*text && used < size) {
        bool folder_here = strncmp(text, "%s", 2) == 0;
        used += (size_t)snprintf(out + used, size - used, "%.*s", folder_here ? 100 : 1,
                                 folder_here ? folder : text);
        text += folder_here ? 2 : 1;
    }
}

static void check_load_fails(const char *path, const char *error_text)
{
    char expected[1000];
    struct config_error error;
    struct config *config = config_load(path, &error);
    assert_null(config);
    expand(error_text, expected, sizeof expected);
    assert_string_equal(error.text, expected);
}

/* Errors name the file they are in, before, inside and after an included one. */
static void test_include(void **state)
{
    (void)state;
    struct config_error error;
    mkdir(in_folder("sub"), 0700);
    write_file("sub/deep.conf", "\nlog = { level = \"warning\"; };");
    write_file("inc.conf", "# first\n@include \"sub/deep.conf\"\npool = { size = 3; };\n");
    const char *path =
        write_file("main.conf", TRUST "  @include \"inc.conf\" # behind\nworkers = 2;\n" DATABASE);
    struct config *config = config_load(path, &error);
    if (!config)
        fail_msg("%s", error.text);
    assert_int_equal(config->log_level, LOG_WARNING);
    assert_int_equal(config->pool.size, 3);
    assert_int_equal(config->workers, 2);
    assert_int_equal(config->databases[0].line, 4);
    config_free(config);

    write_file("sub/deep.conf", "\nlog = { level = \"x\"; };");
    check_load_fails(path, "%s/sub/deep.conf:2: found log.level = \"x\"; allowed: debug | info | "
                           "warning | error");
    write_file("sub/deep.conf", "\n\n\nlog = { leve");
    check_load_fails(path, "%s/inc.conf:3: found a syntax error; allowed: name = value; name = { "
                           "group }; name = ( list ); with strings in \"quotes\"");
    write_file("sub/deep.conf", "\n\n\nlog = = ;\n");
    check_load_fails(path,
                     "%s/sub/deep.conf:4: found a syntax error; allowed: name = value; name = "
                     "{ group }; name = ( list ); with strings in \"quotes\"");
    write_file("sub/deep.conf", "");
    write_file("inc.conf", "@include \"sub/deep.conf\"\npool = { size = 0; };\n");
    check_load_fails(path, "%s/inc.conf:2: found pool.size = 0; allowed: integer, 1 .. 10000");
    write_file("inc.conf", "pool = { size = 9; };\n");
    write_file("main.conf", TRUST "@include \"inc.conf\"\nworkers = 2000;\n" DATABASE);
    check_load_fails(path, "%s/main.conf:3: found workers = 2000; allowed: integer, 0 .. 128");
    write_file("inc.conf", "workers = 1;\n");
    check_load_fails(path,
                     "%s/main.conf:3: found a duplicate setting name; allowed: each name once "
                     "in a group");
    write_file("inc.conf", "/*");
    check_load_fails(path, "%s/inc.conf:1: found a comment that never ends; allowed: /* ... */");
    write_file("inc.conf", "@include \"inc.conf\"");
    check_load_fails(path, "%s/inc.conf:1: found @include nested more than 10 deep; allowed: files "
                           "that do not include each other in a circle");
}

/* The first and the second of a duplicate may be in different files. */
static void test_include_in_a_list(void **state)
{
    (void)state;
    write_file("shard.conf", "\n" SHARD ",\n");
    const char *path =
        write_file("list.conf", TRUST "databases = ( { name = \"app\"; shards = (\n"
                                      "@include \"shard.conf\"\n" SHARD " ); } );\n");
    check_load_fails(path,
                     "%s/list.conf:4: found a second shard \"s0\" (the first: %s/shard.conf:2); "
                     "allowed: each shard name once");
}

#define SCRAM_SECRET                                                                               \
    "SCRAM-SHA-256$4096:dOtHmDW3pMUOX1FpIcp/9g==$"                                                 \
    "cl2Cxx24SX0pWAQHLDtTX67ZcIJK5gD4u7U3HzHt5k4=:"                                                \
    "W0BvPJ8vv44TNYdmMzPLsrFHxYwXyUQRqBHd7nJ1DLs="

static void test_users_file(void **state)
{
    (void)state;
    struct config_error error;
    const char *path = write_file("u.conf", "auth = { users_file = \"users.conf\"; };\n" DATABASE);
    write_file("users.conf", "users = (\n"
                             "  { name = \"zoe\"; password = \"plain\"; },\n"
                             "  { name = \"app\"; password = \"" SCRAM_SECRET "\"; },\n"
                             "  { name = \"ops\"; admin = true; }\n"
                             ");\n");
    struct config *config = config_load(path, &error);
    if (!config)
        fail_msg("%s", error.text);
    assert_int_equal(config->auth_method, AUTH_SCRAM);
    assert_string_equal(config->users_file, in_folder("users.conf"));
    assert_int_equal(config->nusers, 3);
    const struct user_config *zoe = config_user(config, "zoe"), *app = config_user(config, "app"),
                             *ops = config_user(config, "ops");
    assert_string_equal(zoe->secret, "plain");
    assert_false(zoe->admin);
    assert_int_equal(zoe->line, 2);
    assert_string_equal(app->secret, SCRAM_SECRET);
    assert_string_equal(ops->secret, "");
    assert_true(ops->admin);
    assert_null(config_user(config, "nobody"));
    assert_null(config_user(config, ""));
    config_free(config);
}

/* The user's value counts before the database's, and that before the process'. */
static void test_pool_overrides(void **state)
{
    (void)state;
    struct config_error error;
    struct pool_settings pool;
    const char *path = write_file(
        "u.conf", "auth = { users_file = \"users.conf\"; };\n"
                  "pool = { size = 7; reserve_size = 2; query_wait_timeout = \"9s\"; };\n"
                  "limits = { max_database_connections = 40; max_user_clients = 30; };\n"
                  "databases = ( { name = \"app\"; pool_mode = \"session\"; pool_size = 5;\n"
                  "  min_pool_size = 4; query_wait_timeout = \"0s\"; max_clients = 11;\n"
                  "  shards = ( " SHARD " ); },\n"
                  "  { name = \"other\"; max_connections = 0; shards = ( " SHARD " ); } );\n");
    write_file("users.conf",
               "users = ( { name = \"a\"; pool_size = 3; max_connections = 6; },\n"
               "  { name = \"b\"; pool_mode = \"statement\"; max_clients = 2; } );\n");
    struct config *config = config_load(path, &error);
    if (!config)
        fail_msg("%s", error.text);
    config_pool_settings(config, "app", "a", &pool);
    assert_int_equal(pool.mode, POOL_SESSION);
    assert_int_equal(pool.size, 3);
    assert_int_equal(pool.min_size, 3); /* never more than there may be */
    assert_int_equal(pool.reserve_size, 2);
    assert_int_equal(pool.query_wait_timeout, 0);
    config_pool_settings(config, "app", "b", &pool);
    assert_int_equal(pool.mode, POOL_STATEMENT);
    assert_int_equal(pool.size, 5);
    assert_int_equal(pool.min_size, 4);
    config_pool_settings(config, "other", "nobody", &pool);
    assert_memory_equal(&pool, &config->pool, sizeof pool);
    assert_int_equal(pool.query_wait_timeout, 9000);
    assert_int_equal(config_database_connections(config, "app"), 40);
    assert_int_equal(config_database_connections(config, "other"), 0);
    assert_int_equal(config_user_connections(config, "a"), 6);
    assert_int_equal(config_user_connections(config, "b"), 0);
    assert_int_equal(config_database_clients(config, "app"), 11);
    assert_int_equal(config_database_clients(config, "nowhere"), 0);
    assert_int_equal(config_user_clients(config, "a"), 30);
    assert_int_equal(config_user_clients(config, "b"), 2);
    config_free(config);
}

static void check_wish(const struct config *config, const char *database, const char *user,
                       enum route route, const char *region, int64_t max_lag_ms)
{
    struct route_wish wish;
    config_route_wish(config, database, user, &wish);
    assert_int_equal(wish.route, route);
    assert_string_equal(wish.region, region);
    assert_int_equal(wish.max_lag_us, max_lag_ms * 1000);
}

/* The user's word counts before the database's, and that before the process'; each part by itself. */
static void test_routing_of_databases_and_users(void **state)
{
    (void)state;
    struct config_error error;
    struct pool_settings pool;
    const char *path = write_file(
        "r.conf", "auth = { users_file = \"users.conf\"; };\n"
                  "routing = { max_lag = \"2s\"; region = \"us\"; read_write_split = true; };\n"
                  "databases = ( { name = \"app\"; route = \"primary\"; max_lag = \"3s\";\n"
                  "  read_write_split = \"conservative\"; shards = ( " SHARD " ); },\n"
                  "  { name = \"other\"; region = \"eu\"; shards = ( " SHARD " ); } );\n");
    write_file("users.conf",
               "users = ( { name = \"a\"; route = \"replica\"; region = \"\"; },\n"
               "  { name = \"b\"; max_lag = \"0s\"; read_write_split = false; } );\n");
    struct config *config = config_load(path, &error);
    if (!config)
        fail_msg("%s", error.text);
    check_wish(config, "app", "a", ROUTE_REPLICA, "", 3000);
    check_wish(config, "app", "b", ROUTE_PRIMARY, "us", 0);
    check_wish(config, "other", "a", ROUTE_REPLICA, "", 2000);
    check_wish(config, "other", "b", ROUTE_AUTO, "eu", 0);
    check_wish(config, "nowhere", "nobody", ROUTE_AUTO, "us", 2000);
    assert_int_equal(config->pool.read_write_split, SPLIT_AGGRESSIVE);
    config_pool_settings(config, "app", "a", &pool);
    assert_int_equal(pool.read_write_split, SPLIT_CONSERVATIVE);
    config_pool_settings(config, "app", "b", &pool);
    assert_int_equal(pool.read_write_split, SPLIT_OFF);
    check_value(config, "routing.read_write_split", "aggressive");
    config_free(config);
}

static const struct bad_case bad_users[] = {
    {"", "%s/users.conf: found no users; required: the users: ( { name = \"app\"; password = "
         "\"...\"; } )"},
    {"users = (\n{ name = \"a\"; },\n{ name = \"b\"; },\n{ name = \"a\"; } );",
     "%s/users.conf:4: found a second user \"a\" (the first: %s/users.conf:2); allowed: each user "
     "name once"},
    {"users = ( { nmae = \"a\"; } );",
     "%s/users.conf:1: found unknown setting users[0].nmae (did you mean \"name\"?); allowed here: "
     "name, password, admin, stats, certificates, pool_mode, pool_size, min_pool_size, "
     "reserve_pool_size, "
     "reserve_timeout, server_idle_timeout, server_lifetime, query_wait_timeout, "
     "query_wait_notify, client_idle_timeout, idle_transaction_timeout, transaction_timeout, "
     "query_timeout, read_write_split, route, region, max_lag, no_replica, read_your_writes, "
     "monotonic_reads, require_key, max_connections, max_clients"},
    {"users = (\n{ password = \"topsecret\"; } );",
     "%s/users.conf:2: found users[0] without name; required: name of the user"},
    {"users = ( { name = \"a\"; password = 12345; } );",
     "%s/users.conf:1: found users[0].password = ***, an integer; allowed: string"},
    {"users = ( { name = \"a\";\npassword = \"SCRAM-SHA-256$4096:abc\"; } );",
     "%s/users.conf:2: found a damaged SCRAM secret for user \"a\"; allowed: "
     "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey, as pg_authid has it"},
    {"users = ( { name = \"a\"; admin = \"yes\"; } );",
     "%s/users.conf:1: found users[0].admin = \"yes\", a string; allowed: true, false"},
    {"listen = { };\nusers = ( );",
     "%s/users.conf:1: found unknown setting listen; allowed here: users"},
    {"users = ;", "%s/users.conf:1: found a syntax error; allowed: name = value; name = { group }; "
                  "name = ( list ); with strings in \"quotes\""},
    {"users = (\n\n\"",
     "%s/users.conf:3: found a string that never ends; allowed: \"...\" (inside, "
     "\" is written \\\")"},
};

static void test_bad_users(void **state)
{
    (void)state;
    const char *path = write_file("u.conf", "auth = { users_file = \"users.conf\"; };\n" DATABASE);
    for (size_t i = 0; i < sizeof bad_users / sizeof bad_users[0]; i++) {
        write_file("users.conf", bad_users[i].text);
        check_load_fails(path, bad_users[i].error);
    }
    unlink(in_folder("users.conf"));
    check_load_fails(path,
                     "%s/u.conf:1: found auth.users_file = \"%s/users.conf\" (No such file or "
                     "directory); allowed: a readable file");
    mkdir(in_folder("users.conf"), 0700);
    check_load_fails(path, "%s/users.conf: found a directory; allowed: a readable file");
    rmdir(in_folder("users.conf"));
}

static void load_and_free(void *path)
{
    struct config_error error;
    config_free(config_load(path, &error));
}

/* A file with passwords that others may read is loaded, with a warning. */
static void test_readable_by_others(void **state)
{
    (void)state;
    char path[200];
    snprintf(path, sizeof path, "%s",
             write_file("u.conf", "auth = { users_file = \"users.conf\"; };\n" DATABASE));
    write_file("users.conf", "users = ( { name = \"a\"; password = \"b\"; } );\n");
    log_configure(LOG_INFO, LOG_FORMAT_LOGFMT);
    capture(load_and_free, path);
    assert_string_equal(captured_err, "");
    chmod(in_folder("users.conf"), 0640);
    capture(load_and_free, path);
    assert_non_null(strstr(captured_err, "level=warning"));
    assert_non_null(strstr(captured_err, "readable by others"));
    assert_non_null(strstr(captured_err, "/users.conf"));
    chmod(in_folder("users.conf"), 0600);
    write_file("u.conf", TRUST "monitor = { password = \"x\"; };\n" DATABASE);
    chmod(path, 0604);
    capture(load_and_free, path);
    assert_non_null(strstr(captured_err, "/u.conf"));
    write_file("u.conf", TRUST DATABASE);
    chmod(path, 0644);
    capture(load_and_free, path);
    assert_string_equal(captured_err, "");
}

/* ---- reload ---- */

struct restart_case {
    const char *old;
    const char *next;
    const char *needed;
};

static const struct restart_case restarts[] = {
    {"", "", ""},
    {"listen = { port = 6432; };", "", ""},
    {"", "listen = { port = 6433; };", "listen.port"},
    {"listen = { address = \"::\"; };", "listen = { port = 6433; backlog = 5; };",
     "listen.address, listen.port, listen.backlog"},
    {"workers = 7;", "workers = 8;", "workers"},
    {"", "pid_file = \"p\"; restart = { socket = \"off\"; patience = \"2s\"; };",
     "pid_file, restart.socket"},
    {"", "http = { };", "http.port"},
    {"", "pool = { size = 1; }; log = { level = \"error\"; }; routing = { max_lag = \"2s\"; };",
     ""},
};

static void test_restart_needed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof restarts / sizeof restarts[0]; i++) {
        char text[2000], out[200], small[16];
        snprintf(text, sizeof text, TRUST "%s\n" DATABASE, restarts[i].old);
        struct config *old = load_text(text);
        snprintf(text, sizeof text, TRUST "%s\n" DATABASE, restarts[i].next);
        struct config *next = load_text(text);
        assert_string_equal(config_restart_needed(old, next, out, sizeof out), restarts[i].needed);
        config_restart_needed(old, next, small, sizeof small);
        assert_memory_equal(small, restarts[i].needed, strlen(small));
        config_free(old);
        config_free(next);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_nul_byte),
        cmocka_unit_test(test_unreadable_file),
        cmocka_unit_test(test_hostile_text),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_workers_default),
        cmocka_unit_test(test_odd_but_good),
        cmocka_unit_test(test_include),
        cmocka_unit_test(test_include_in_a_list),
        cmocka_unit_test(test_users_file),
        cmocka_unit_test(test_routing_of_databases_and_users),
        cmocka_unit_test(test_pool_overrides),
        cmocka_unit_test(test_bad_users),
        cmocka_unit_test(test_readable_by_others),
        cmocka_unit_test(test_restart_needed),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

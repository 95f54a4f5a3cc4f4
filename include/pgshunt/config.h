/*
 * config.h: the configuration file as one immutable value.
 *
 * common/settings.c holds the settings table (one row per setting: name, type, default, range,
 * reloadable, help); parsing, SHOW CONFIG, --help-config and docs/reference/settings.md come from it
 * alone. A struct config owns all its strings (one arena) and never changes after loading; a reload
 * loads a new one. Durations are milliseconds, sizes bytes.
 */
#ifndef PGSHUNT_CONFIG_H
#define PGSHUNT_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "pgshunt/arena.h"
#include "pgshunt/hba.h"
#include "pgshunt/log.h"
#include "pgshunt/route.h"
#include "pgshunt/shardkey.h"

enum auth_method { AUTH_TRUST, AUTH_MD5, AUTH_SCRAM, AUTH_PASSWORD, AUTH_HBA, AUTH_CERT };
/* What becomes of clients when the connection that listens for them was lost. */
enum listen_lost { LISTEN_LOST_WARN, LISTEN_LOST_CLOSE };
/* A commit on several shards that were written to. */
enum multi_shard_commit { COMMIT_ATOMIC, COMMIT_ONE_BY_ONE };
enum catalog_source { CATALOG_RECORDED, CATALOG_CONFIGURED };
enum pool_mode { POOL_TRANSACTION, POOL_SESSION, POOL_STATEMENT };

/*
 * What the whole process (pool.*), a database and a user may each set: the user's value counts before the
 * database's, and that before the process'. Every member is an int64_t, so that they are laid over each
 * other by one loop; SETTING_INHERIT says that nothing was set here. Durations are milliseconds.
 */
#define SETTING_INHERIT (-1)
struct pool_settings {
    int64_t mode;                /* enum pool_mode */
    int64_t size;                /* server connections of a pool */
    int64_t min_size;            /* kept open even if unused */
    int64_t reserve_size;        /* more for clients that have waited for reserve_timeout */
    int64_t reserve_timeout;     /* 0: no reserve */
    int64_t server_idle_timeout; /* 0: never */
    int64_t server_lifetime;     /* 0: never */
    int64_t query_wait_timeout;  /* 0: for ever */
    int64_t query_wait_notify;   /* 0: never */
    int64_t client_idle_timeout; /* this and the next three: 0: none (timeouts.h) */
    int64_t idle_transaction_timeout;
    int64_t transaction_timeout;
    int64_t query_timeout;
    int64_t read_write_split; /* enum split_mode */
    int64_t route;            /* enum route */
    int64_t max_lag;          /* of a replica that is read from */
    int64_t no_replica;       /* enum no_replica */
    int64_t read_your_writes; /* 0, 1 */
    int64_t monotonic_reads;  /* 0, 1 */
    int64_t require_key;      /* enum require_key */
};

/* How one of several replicas is picked. */
enum balance_method { BALANCE_LEAST_OUTSTANDING, BALANCE_ROUND_ROBIN };

/* TLS with clients. ALLOW and PREFER are the same for who is connected to: the client chooses. */
enum client_tls_mode {
    CLIENT_TLS_DISABLE,
    CLIENT_TLS_ALLOW,
    CLIENT_TLS_PREFER,
    CLIENT_TLS_REQUIRE,
    CLIENT_TLS_VERIFY_CA,   /* ... and a certificate that ca_file vouches for */
    CLIENT_TLS_VERIFY_FULL, /* ... which names the user */
};

/* TLS with servers, as libpq's sslmode. */
enum server_tls_mode {
    SERVER_TLS_INHERIT = SETTING_INHERIT, /* of a shard, while it is being read */
    SERVER_TLS_DISABLE = 0,
    SERVER_TLS_PREFER,
    SERVER_TLS_REQUIRE,
    SERVER_TLS_VERIFY_CA,
    SERVER_TLS_VERIFY_FULL,
};

enum tls_version { TLS_VERSION_1_2, TLS_VERSION_1_3 };
enum channel_binding { CHANNEL_BINDING_DISABLE, CHANNEL_BINDING_PREFER, CHANNEL_BINDING_REQUIRE };

/* What both sides have; files are paths from here on, "" none. */
struct tls_config {
    const char *cert_file;
    const char *key_file;
    const char *ca_file;
    enum tls_version min_version;
    enum tls_version max_version;
    const char *ciphers;      /* TLS 1.2; "": OpenSSL's */
    const char *ciphersuites; /* TLS 1.3; "": OpenSSL's */
};

struct server_tls_config {
    enum server_tls_mode mode;
    enum channel_binding channel_binding;
    struct tls_config tls;
};

struct node_config {
    const char *host;
    int port;
    const char *region; /* "" if none */
    int weight;         /* share of reads among the replicas of a shard; default 1 */
    int line;
};

struct shard_config {
    const char *name;
    const char *dbname;
    int weight;
    struct node_config *nodes;
    int nnodes;
    struct server_tls_config server_tls; /* whole: what is not said here is config->server_tls's */
    int line;
};

struct table_config {
    const char *name;
    const char *key; /* "": several, `keys` */
    const char **keys;
    int nkeys;
    int line;
};

/* keyspaces by list: values of one shard */
struct list_config {
    const char *shard;
    const char **values;
    int nvalues;
    int line;
};

/* keyspaces by range: from <= key < to */
struct range_config {
    const char *from; /* "MINVALUE": below all values */
    const char *to;   /* "MAXVALUE": above all values */
    const char *shard;
    int line;
};

/* A column of a table of a keyspace by which keys are found. */
struct lookup_config {
    const char *table; /* as the keyspace names it */
    const char *column;
    bool unique; /* a value is on one shard only */
    int line;
};

struct keyspace_config {
    const char *name;
    enum key_type type;
    enum key_hash hash;
    enum key_map map;
    const char **types; /* of a key of several columns */
    int ntypes;
    struct list_config *lists; /* MAP_LIST */
    int nlists;
    const char *rest;            /* MAP_LIST: shard of all other values; "": none */
    struct range_config *ranges; /* MAP_RANGE */
    int nranges;
    struct table_config *tables;
    int ntables;
    struct lookup_config *lookups;
    int nlookups;
    int line;
};

/* A schema whose tables are on one shard. */
struct schema_config {
    const char *name;
    const char *shard;
    int line;
};

struct database_config {
    const char *name;
    const char *catalog;  /* name of the catalog shard; default: the first */
    const char *user;     /* log in to the servers as this user; "": as the client's user */
    const char *password; /* for `user`; "": from the users file */
    struct pool_settings pool;
    const char *region;      /* replicas there come first; NULL: not set here */
    int64_t max_connections; /* server connections of all its pools; SETTING_INHERIT, 0: no limit */
    int64_t max_clients;     /* logged in; likewise */
    const char *auth_query;  /* "": auth.query, and so on */
    const char *auth_query_user;
    const char *auth_query_password;
    const char *auth_query_dbname;
    struct shard_config *shards;
    int nshards;
    struct keyspace_config *keyspaces;
    int nkeyspaces;
    const char **reference;
    int nreference;
    struct schema_config *schemas;
    int nschemas;
    int line;
};

struct user_config {
    const char *name;
    const char *secret;        /* plain password, "SCRAM-SHA-256$..." or "md5..." ; "" none */
    bool admin;                /* may connect to the console */
    bool stats;                /* ... but only look */
    const char **certificates; /* names in certificates that may log in as this user */
    int ncertificates;         /* 0: the user's own name */
    struct pool_settings pool;
    const char *region; /* as of a database */
    int64_t max_connections;
    int64_t max_clients;
    int line;
};

/* Of connections with clients and with servers. 0: as the system has it. */
struct tcp_settings {
    bool keepalive;
    int64_t keepalive_idle;
    int64_t keepalive_interval;
    int keepalive_count;
    int64_t user_timeout;
};

struct config {
    struct arena arena;
    const char *path;
    const char *listen_address;
    int listen_port;
    int primary_port; /* everything that comes in there runs on primaries; 0: none */
    int replica_port; /* ... on replicas */
    int listen_backlog;
    const char *unix_socket_dir;   /* "": no unix socket for clients */
    const char *unix_socket_mode;  /* octal */
    const char *unix_socket_group; /* name or number; "": the process' */
    struct tcp_settings tcp;
    const char *http_address;
    int http_port; /* 0: no HTTP */
    int workers;   /* resolved: at least 1 */
    enum auth_method auth_method;
    enum client_tls_mode client_tls_mode;
    struct tls_config client_tls;
    struct server_tls_config server_tls;
    const char *users_file; /* resolved relative to the configuration file; "" none */
    const char *hba_file;   /* likewise, with method HBA */
    struct hba *hba;        /* its rules; NULL with another method */
    const char *ident_file; /* likewise; "": none */
    struct ident *ident;    /* its maps; NULL: none */
    struct pool_settings pool;
    const char *reset_query;    /* run on a server that a session had to itself; "": none */
    bool server_round_robin;    /* the server idle longest is taken first, not last */
    int64_t server_check_delay; /* idle for longer: tested before use; 0: never tested */
    enum listen_lost listen_lost;
    int64_t max_notifications; /* bytes that wait for one client */
    bool pin_notice;
    bool expect_last_value;
    const char *pin_functions;   /* names, also "schema.name", separated by commas or blanks */
    int max_prepared_statements; /* on one server connection */
    int64_t connect_timeout;
    int64_t login_retry;     /* pause after a failed login to a server */
    int64_t login_retry_max; /* ... which doubles up to this */
    int max_logins;          /* logins under way per node; 0: no limit */
    int64_t login_timeout;
    int64_t failure_delay;
    const char *auth_query;      /* SQL: name, secret, seconds it is valid */
    const char *auth_query_user; /* "": users are not looked up, but where a database says so */
    const char *auth_query_password;
    const char *auth_query_dbname; /* "": the shard's */
    int64_t auth_query_timeout;
    int64_t auth_query_cache;
    int64_t shutdown_timeout;
    const char *pid_file;       /* "": none */
    const char *restart_socket; /* "auto", "off", or a name */
    int64_t restart_patience;
    int64_t cancel_wait_timeout;
    const char *region; /* "": no preference */
    enum balance_method balance;
    int region_spill;   /* connections in use; 0: never */
    int64_t slow_start; /* 0: none */
    int64_t failover_wait;
    enum multi_shard_commit multi_shard_commit;
    int64_t shard_deadlock_timeout; /* 0: not looked for */
    int64_t recover_after;          /* a prepared transaction older than this is nobody's */
    int64_t lag_check_interval;
    int64_t check_timeout;
    int health_fall; /* checks in a row: to take a node out, to bring one back */
    int health_rise;
    int64_t health_down_interval;
    int breaker_failures; /* 0: circuit breakers never open */
    int64_t breaker_open;
    int64_t breaker_reset;
    int64_t dns_ttl;
    enum catalog_source catalog_map; /* which map of the buckets counts */
    int64_t catalog_interval;
    const char *catalog_state_file; /* "": none */
    const char *partition_schedule; /* as pgshunt/cron.h has it; "": never */
    int64_t partition_interval;
    int64_t partition_timeout;    /* 0: none */
    const char *partition_user;   /* "": monitor_user */
    bool reshard_daemon;          /* detached jobs are run by children of this process */
    const char *monitor_user;     /* whom the monitor logs in as */
    const char *monitor_password; /* "": from the users file */
    int max_clients;
    int64_t max_server_connections;   /* in all; 0: no limit */
    int64_t max_node_connections;     /* to one server (host and port); 0: no limit */
    int64_t max_database_connections; /* unless a database says otherwise; 0: no limit */
    int64_t max_user_connections;     /* unless a user says otherwise; 0: no limit */
    int64_t max_database_clients;
    int64_t max_user_clients;
    int max_replication;                        /* replication sessions */
    int64_t max_message;                        /* largest Query/Parse/Bind taken, bytes */
    int64_t max_groups;                         /* groups a cross-shard GROUP BY may hold */
    int64_t semi_join_values, semi_join_factor; /* see reduce.h */
    int64_t max_gather; /* bytes that one query may bring to one server from others; 0: no limit */
    int lookup_cache;   /* values of lookup columns whose shard is remembered; 0: none */
    int client_statements;           /* prepared statements of one client */
    int64_t client_statement_memory; /* ... and its portals, bytes */
    enum log_level log_level;
    enum log_format log_format;
    bool log_connections;
    struct database_config *databases;
    int ndatabases;
    struct user_config *users;
    int nusers;
};

/* What is wrong with a configuration: "file:line: what was found; what is allowed". */
struct config_error {
    char text[1024];
};

/* Loads file and users file. NULL: `error` says why. */
struct config *config_load(const char *path, struct config_error *error);
void config_free(struct config *config);
const struct database_config *config_database(const struct config *config, const char *name);
const struct user_config *config_user(const struct config *config, const char *name);
/* What holds for this user of this database (names of neither need be known): every member has a value. */
void config_pool_settings(const struct config *config, const char *database, const char *user,
                          struct pool_settings *out);
/* What it says about routing, laid over each other likewise: nothing is left unsaid. */
void config_route_wish(const struct config *config, const char *database, const char *user,
                       struct route_wish *out);
/* Limits of one database and of one user; 0: none. */
int64_t config_database_connections(const struct config *config, const char *database);
int64_t config_user_connections(const struct config *config, const char *user);
int64_t config_database_clients(const struct config *config, const char *database);
int64_t config_user_clients(const struct config *config, const char *user);
/* How to connect to a node of a database (NULL: of any): its shard's settings; the general ones where
 * it is none of the configuration's. */
const struct server_tls_config *config_server_tls(const struct config *config, const char *database,
                                                  const char *host, int port, const char *dbname);
/* Names of settings whose value differs but that need a restart, separated by ", ". "" if none. */
const char *config_restart_needed(const struct config *old, const struct config *next, char *out,
                                  size_t size);

/* One scalar setting, for SHOW CONFIG and the reference page. */
struct setting_info {
    const char *name;    /* "pool.size" */
    const char *type;    /* "duration", "size", "integer", "boolean", "string", "one of a | b" */
    const char *initial; /* default, as one would write it */
    const char *range;   /* "1 .. 65535", "" if any */
    bool reloadable;
    const char *help;
};
int settings_count(void);
const struct setting_info *settings_info(int index);
/* Current value as one would write it, into out. Secrets come as "***". */
void settings_value(const struct config *config, int index, char *out, size_t size);
void settings_print_help(FILE *out);     /* --help-config */
void settings_print_markdown(FILE *out); /* docs/reference/settings.md */

#endif

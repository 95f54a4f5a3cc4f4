/*
 * catalog.h: what pgshunt keeps in Postgres: the map of buckets with its epoch, holds, and the proxies that are alive.
 *
 * Tables of schema pgshunt on the catalog shard's primary; docs/internals/resharding.md has them. Each function is one
 * transaction on `db`, a session with that primary that the caller has opened; false: `error` says why and nothing
 * has changed.
 */
#ifndef PGSHUNT_CATALOG_H
#define PGSHUNT_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/arena.h"
#include "pgshunt/config.h"
#include "pgshunt/db.h"
#include "pgshunt/shardmap.h"

/* Buckets first..last of a keyspace, both included. */
struct catalog_range {
    const char *keyspace;
    unsigned first, last;
};

/* Makes the tables where they are missing. */
MUST_CHECK bool catalog_prepare(struct db *db, struct db_error *error);
/* What the owner of the database has to run where catalog_prepare() may not, with `user` as who may write. */
const char *catalog_prepare_sql(struct arena *arena, const char *user);

/* Proxies hear on the catalog shard that the schema was changed past them, and read it anew. */
#define CATALOG_SCHEMA_CHANNEL "pgshunt_schema"
MUST_CHECK bool catalog_announce_schema(struct db *db, const char *database,
                                        struct db_error *error);

/* ---- the map ---- */

struct catalog_owner {
    struct catalog_range range;
    const char *shard;
};
/* How keys find their buckets; keyspaces that have none of it go by the hash xxh64. */
struct catalog_kind {
    const char *keyspace, *kind; /* see keyspace_kind() */
    unsigned modulus;            /* of "postgres" */
};
/* A bucket of a list or of ranges. */
struct catalog_piece {
    const char *keyspace;
    unsigned bucket;
    const char
        *value; /* of the list, or where the interval begins; NULL: all others, or below all */
};
struct catalog_ghost {
    const char *keyspace, *shard;
};
struct catalog_hold {
    int64_t id;
    int64_t left_ms; /* of its lease, when it was read; above 0 */
    bool force;
    const struct catalog_range *ranges;
    int nranges;
    const char *const *tables; /* names, whose every statement waits */
    int ntables;
};
/* What a table is, whatever the configuration says of it. */
struct catalog_rule {
    const char *name;           /* as in the configuration: "orders", "public.orders" */
    const char *keyspace;       /* NULL: the table is unsharded */
    const char *const *columns; /* of its sharding key */
    int ncolumns;
};

/* What is recorded of one database's map. All of it belongs to one arena. */
struct catalog_map {
    int64_t epoch; /* 0: nothing is recorded */
    struct catalog_owner *owners;
    int nowners;
    struct catalog_kind *kinds;
    int nkinds;
    struct catalog_piece *pieces;
    int npieces;
    struct catalog_ghost *ghosts;
    int nghosts;
    struct catalog_hold *holds; /* by id */
    int nholds;
    struct catalog_rule *rules; /* by name */
    int nrules;
};

/* As it is now, at one moment. Tables that are not there hold nothing. */
MUST_CHECK bool catalog_read(struct db *db, const char *database, struct arena *arena,
                             struct catalog_map *recorded, struct db_error *error);
/*
 * The same, where the values of lists and the parts of ranges, of which there may be many, are those of `known` (NULL: nothing is) if
 * the epoch is: they then belong to its arena.
 */
MUST_CHECK bool catalog_read_newer(struct db *db, const char *database,
                                   const struct catalog_map *known, struct arena *arena,
                                   struct catalog_map *recorded, struct db_error *error);
/*
 * The configuration's map with what is recorded laid over it; the caller frees it. NULL: it names a shard that the
 * configuration does not have, does not cover a keyspace, or is of a keyspace that was mapped otherwise; `error` says so.
 */
struct shardmap *catalog_lay(const struct database_config *database,
                             const struct catalog_map *recorded, struct db_error *error);
/* Whether the keyspace's buckets are recorded. */
bool catalog_has_keyspace(const struct catalog_map *recorded, const char *keyspace);
/* Whether the configuration has keyspaces, or (`values`: that takes a look at each) values of a list that are nobody's so far, that
 * are not recorded yet. */
bool catalog_lacks(const struct database_config *database, const struct catalog_map *recorded,
                   bool values);
/*
 * A text of what the configuration says otherwise than the recorded map has it, which counts, in `arena`; NULL: nothing.
 */
const char *catalog_difference(const struct database_config *database,
                               const struct catalog_map *recorded, struct arena *arena);
/* Whether the database has anything to record: keyspaces, and several shards. */
bool catalog_is_for(const struct database_config *database);

/*
 * The map of the database as it is now: the configuration's, with the buckets, ghosts, the holds whose lease has time left
 * and the epoch of the catalog laid over it. Epoch 0: nothing is recorded (or there are no tables). The caller frees it.
 */
MUST_CHECK bool catalog_read_map(struct db *db, const struct database_config *database,
                                 struct shardmap **map, struct db_error *error);
/*
 * Writes the buckets of all keyspaces that have none there yet, as the configuration has them; epoch 1 if it was 0. Also
 * values of lists that belong to no bucket yet, so that no row of theirs can be anywhere.
 */
MUST_CHECK bool catalog_record_map(struct db *db, const struct database_config *database,
                                   struct db_error *error);

/*
 * Buckets that `map` has more than are recorded, of keyspaces by list and range: each belongs to whose rows it has already
 * (shardmap_split()). `map` is of the epoch that is recorded, else nothing is changed: 40001.
 */
MUST_CHECK bool catalog_record_splits(struct db *db, const char *database,
                                      const struct shardmap *map, struct db_error *error);

/* ---- holds ---- */

/* Proxies are to keep what touches these buckets; *id: its number. */
MUST_CHECK bool catalog_hold(struct db *db, const char *database, const char *job,
                             const struct catalog_range *ranges, int count, int64_t lease_ms,
                             int64_t *id, struct db_error *error);
/* ... what names these tables. */
MUST_CHECK bool catalog_hold_tables(struct db *db, const char *database, const char *job,
                                    const char *const *tables, int count, int64_t lease_ms,
                                    int64_t *id, struct db_error *error);
MUST_CHECK bool catalog_hold_extend(struct db *db, int64_t id, int64_t lease_ms, bool force,
                                    struct db_error *error);
MUST_CHECK bool catalog_release(struct db *db, int64_t id, struct db_error *error);

struct catalog_proxy {
    const char *id, *host, *version;
    int pid;
    int64_t epoch, hold;
    int busy, held;
    /* The epoch of the oldest map that anything is still at work under; -1: it is not known. */
    int64_t oldest;
    const char *oldest_who; /* whose that is, for people; "": nobody's, all use `epoch` */
    int64_t patience_ms;    /* it is gone when it was not seen for that long */
    double seen_seconds;    /* ago */
};
/* The proxies that are alive, in `arena`. */
MUST_CHECK bool catalog_proxies(struct db *db, const char *database, struct arena *arena,
                                struct catalog_proxy **proxies, int *count, struct db_error *error);
/*
 * What a proxy says of itself; makes or touches its row, and removes those of others that are gone. 42703: the table was made
 * by an earlier version (catalog_prepare()); with `oldest` -1 it is told what it has columns for.
 */
MUST_CHECK bool catalog_proxy_seen(struct db *db, const char *database,
                                   const struct catalog_proxy *self, struct db_error *error);
/* It ends: its row is removed. */
MUST_CHECK bool catalog_proxy_leaves(struct db *db, const char *database, const char *id,
                                     struct db_error *error);

/* ---- how often buckets are asked for ---- */

/* Statements about a bucket, as it was sampled; older ones count less and less. */
struct catalog_load {
    const char *keyspace;
    unsigned bucket;   /* SHARDMAP_NO_BUCKET: all that are not told alone, of */
    const char *shard; /* ... this shard; else NULL */
    double statements;
};
/* Adds what was counted since the last call. */
MUST_CHECK bool catalog_add_load(struct db *db, const char *database,
                                 const struct catalog_load *loads, int count,
                                 struct db_error *error);
/* All of a database, in `arena`. None where nobody has ever counted. */
MUST_CHECK bool catalog_read_load(struct db *db, const char *database, struct arena *arena,
                                  struct catalog_load **loads, int *count, struct db_error *error);

/* ---- the change of the map ---- */

/* Where buckets are to be. */
struct catalog_move {
    struct catalog_range range;
    const char *source, *target; /* shards */
};
/*
 * The switch's one transaction, for job `job` while its attempt is `attempt` and the hold has at least 1 s of its lease
 * left: the buckets go from source to target (all of them were the source's, else false), ghosts are turned round, epoch + 1
 * must be `epoch`, state `state`, the attempt is cleared, the step `flip` is in the history, the hold is deleted, and it is
 * announced. False with SQLSTATE 40001: it was not ours any more.
 */
MUST_CHECK bool catalog_flip(struct db *db, const char *database, const char *job,
                             const char *attempt, int64_t hold, const struct catalog_move *moves,
                             int count, int64_t epoch, const char *state, struct db_error *error);
/*
 * Ends a switch that was not finished: job's attempt (if it is still `attempt`) is taken away, its state is `state`
 * again, its holds are gone, and the epoch becomes `epoch` (of the guards) if it was less, with every bucket where it
 * was; announced. False with SQLSTATE 40001: it was another's attempt.
 */
MUST_CHECK bool catalog_abort(struct db *db, const char *database, const char *job,
                              const char *attempt, int64_t epoch, const char *state,
                              struct db_error *error);
/* Of a hold's lease: with less left nobody may change the map any more, and anybody may undo the attempt. */
#define CATALOG_TOO_LATE_MS 900
/*
 * Undoes, as catalog_abort(), the attempts of jobs whose hold has less than that left: by proxies, which keep holding what a
 * command that died has left, until it is done. Where there are none, nothing is changed.
 */
MUST_CHECK bool catalog_expire(struct db *db, const char *database, struct db_error *error);
/*
 * A shard has ghost rows of a keyspace from now on, or none any more; announced. The epoch is raised if that is new: only
 * when all proxies have it do they leave such rows out.
 */
MUST_CHECK bool catalog_set_ghost(struct db *db, const char *database, const char *keyspace,
                                  const char *shard, const char *job, bool has,
                                  struct db_error *error);

/* ---- tables that enter or leave a keyspace ---- */

/* Whether what is recorded of a table is another thing than the configuration says: its name; NULL: nothing is. */
const char *catalog_other_table(const struct database_config *database,
                                const struct catalog_map *recorded);
/*
 * Records what the tables are now, so that no change of the configuration makes them anything else while the job moves
 * them; announced. What is recorded of them already stays.
 */
MUST_CHECK bool catalog_keep_tables(struct db *db, const char *database, const char *job,
                                    const struct catalog_rule *rules, int count,
                                    struct db_error *error);
/* The job is over: what was recorded for it stays for good, or (`forget`) is taken away again, and announced. */
MUST_CHECK bool catalog_settle_tables(struct db *db, const char *database, const char *job,
                                      bool forget, struct db_error *error);

/* What a switch of tables is. */
struct catalog_turn {
    const char *job, *attempt, *state; /* as of catalog_flip() */
    int64_t hold, epoch;
    const struct catalog_rule *rules; /* what the tables are from now on */
    int nrules;
    const struct catalog_move *owners; /* the buckets' owners must be their `target` */
    int nowners;
    const char *keyspace, *home; /* this shard has ghost rows of it from now on, ... */
    bool ghosts;                 /* ... or none of this job any more */
};
/* As catalog_flip(), for tables: no bucket moves, but what the tables are. */
MUST_CHECK bool catalog_flip_tables(struct db *db, const char *database,
                                    const struct catalog_turn *turn, struct db_error *error);

#endif

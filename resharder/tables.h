/*
 * tables.h: the tables of the keyspaces that move, as one shard has them.
 *
 * What is read belongs to the arena it was read into. Partitioned tables are one entry (their root) with leaves;
 * a table without partitions is its own only leaf. Rows travel as the root's (publish_via_partition_root).
 */
#ifndef PGSHUNT_RESHARDER_TABLES_H
#define PGSHUNT_RESHARDER_TABLES_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/arena.h"
#include "pgshunt/db.h"
#include "pgshunt/shardmap.h"
#include "resharder/move.h"

struct move_column {
    const char *name;
    const char *quoted;
    const char *type; /* as format_type() has it, for DDL */
    uint32_t type_oid;
    uint32_t base_oid; /* of a domain: what it is made of, else type_oid; for move_bucket() */
    bool not_null;
    bool generated; /* GENERATED ALWAYS AS (...) STORED: not copied, computed there */
    bool identity;  /* GENERATED ... AS IDENTITY: its values are copied (OVERRIDING SYSTEM VALUE) */
};

struct move_leaf {
    const char *relation; /* "schema"."name" */
    uint32_t oid;
    int64_t pages; /* from its size now */
    int64_t bytes; /* with TOAST, without indexes */
};

/* What tells rows apart in the stream. */
enum move_identity {
    MOVE_IDENTITY_KEY, /* the primary key, or the replica identity's index: `identity` has the columns */
    MOVE_IDENTITY_FULL, /* REPLICA IDENTITY FULL: all columns */
    MOVE_IDENTITY_NONE, /* updates and deletes would fail on the source: check.c mends or refuses */
};

struct move_table {
    const char *schema, *name;
    const char *relation; /* "schema"."name", quoted */
    uint32_t oid;
    const struct table_rule *rule; /* of the map: keyspace, key columns */
    struct move_column *columns;   /* in order, dropped ones left out */
    int ncolumns;
    int key[SHARDMAP_MAX_PARTS]; /* the sharding key's columns: indexes of `columns` */
    unsigned nkey;
    int *
        primary; /* columns of the primary key (or the unique not null index used as identity); for ON CONFLICT, verify */
    int nprimary; /* 0: there is none */
    enum move_identity identity_kind;
    int *identity; /* columns that UPDATE and DELETE carry of the old row */
    int nidentity;
    bool key_in_identity; /* else the identity has to be made FULL for the time of the job */
    bool partitioned;
    struct move_leaf *leaves;
    int nleaves;
    double rows;        /* the statistics' guess; -1: never analyzed */
    int64_t live_bytes; /* ... of what they take without what is dead or free in the files */
};

struct move_tables {
    struct move_table *items;
    int count;
};

/* A sequence owned by (or the default of) a column of such a table. */
struct move_sequence {
    const char *relation; /* quoted, with schema */
    int64_t last_value, increment;
    bool is_called;
};

/*
 * Reads the tables of all keyspaces that have a move, found by the map's rules among the relations of the
 * shard: ordered by name. False: `error` says why. A table with a rule but no relation there is left out.
 */
MUST_CHECK bool tables_read(struct db *db, const struct moves *moves, struct arena *arena,
                            struct move_tables *tables, struct db_error *error);
MUST_CHECK bool tables_sequences(struct db *db, const struct move_tables *tables,
                                 struct arena *arena, struct move_sequence **sequences, int *count,
                                 struct db_error *error);
/* NULL: no table of that name. */
const struct move_table *tables_find(const struct move_tables *tables, const char *schema,
                                     const char *name);
/* "ghost_users": the table of a keyspace's ghost keys, quoted, with schema. */
const char *tables_ghost(const struct keyspace *keyspace, struct arena *arena);
/* Statement that makes that table where it is missing. */
const char *tables_ghost_create(const struct keyspace *keyspace, struct arena *arena);

#endif

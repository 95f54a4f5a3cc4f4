/*
 * guc.h: the session settings a client has made (or a server connection carries), so that transaction
 * pooling does not lose them: before a client's first statement on a server, guc_difference() gives the
 * SQL that makes the server's settings the client's.
 *
 * A set remembers what differs from the server's own defaults: name and value as SQL ("'UTC'", "42",
 * "'a', 'b'"). Sets are immutable and interned in one table of the process: equal sets are one object,
 * held by reference count, so that thousands of clients with the same settings share one, and comparing
 * sets is comparing pointers. The empty set is NULL. The parameters that servers report (ParameterStatus)
 * are kept in such sets too, with plain values.
 *
 * Settings made inside a transaction are provisional: they count for the client at commit and are
 * forgotten at rollback (to a savepoint: down to its mark).
 */
#ifndef PGSHUNT_PROXY_GUC_H
#define PGSHUNT_PROXY_GUC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "pgshunt/buffer.h"

struct guc {
    const char *name;  /* lower case */
    const char *value; /* SQL */
};

/* What routing asks of settings for every statement. */
enum guc_fact {
    GUC_READ_ONLY = 1 << 0,    /* default_transaction_read_only */
    GUC_SERIALIZABLE = 1 << 1, /* default_transaction_isolation */
    GUC_OTHER_ENCODING =
        1 << 2,               /* client_encoding is not UTF-8 (nor SQL_ASCII, which says nothing) */
    GUC_ASCII_HIDES = 1 << 3, /* ... and one whose characters may hold ASCII bytes */
};

/* One allocation: the items' texts are behind them. */
struct guc_set {
    atomic_int references;
    int count;
    unsigned facts; /* enum guc_fact bits */
    uint64_t hash;
    UT_hash_handle hh;
    struct guc items[]; /* sorted by name */
};

/* The set becomes the one with this setting; value NULL removes it. */
void guc_set_put(struct guc_set **set, const char *name, const char *value);
/* A plain (unquoted) value, as startup packets and set_config() have it. */
void guc_set_put_text(struct guc_set **set, const char *name, const char *text);
const char *guc_set_get(const struct guc_set *set, const char *name); /* or NULL */
void guc_set_assign(struct guc_set **to, struct guc_set *from); /* takes a reference of its own */
void guc_set_release(struct guc_set **set);                     /* it is empty then */
static inline int guc_set_count(const struct guc_set *set)
{
    return set ? set->count : 0;
}
static inline unsigned guc_set_facts(const struct guc_set *set)
{
    return set ? set->facts : 0;
}
/* Sets alive in the process, for tests. */
int guc_sets_alive(void);

/*
 * What RESET ALL leaves of a set: the role and the session authorization. `DISCARD ALL` leaves nothing.
 */
void guc_set_reset_all(struct guc_set **set);
/* Appends "SET a TO 'x';RESET b;..." that turns `from` into `to`. */
void guc_difference(const struct guc_set *from, const struct guc_set *to, struct buffer *sql);
/* A plain text as a value, to be freed: what guc_set_put_text() would store. */
char *guc_text_value(const char *name, const char *text);

enum guc_change_kind { GUC_SET, GUC_RESET_ALL, GUC_DISCARD_ALL };

/* One change of a transaction not yet committed. */
struct guc_change {
    enum guc_change_kind kind;
    bool local;  /* ends with the transaction */
    char *name;  /* SET */
    char *value; /* SET: SQL; NULL: reset to the default */
};

/* They are in order. */
struct guc_pending {
    struct guc_change *items;
    int count;
    int capacity;
};

void guc_pending_add(struct guc_pending *pending, bool local, const char *name, const char *value);
void guc_pending_add_kind(struct guc_pending *pending, enum guc_change_kind kind);
void guc_pending_truncate(struct guc_pending *pending, int count);
/* What the set is after a commit. A reset goes back to `startup`: the client's own, or NULL for a server. */
void guc_pending_apply(const struct guc_pending *pending, const struct guc_set *startup,
                       struct guc_set **set);
/* The last change for the session that concerns this setting, or NULL. */
const struct guc_change *guc_pending_last(const struct guc_pending *pending, const char *name);
/* Appends the SQL of changes [from, to): for a server that joins the transaction. */
void guc_pending_sql(const struct guc_pending *pending, int from, int to, struct buffer *sql);
void guc_pending_free(struct guc_pending *pending);

void guc_append_identifier(struct buffer *sql, const char *name);

#endif

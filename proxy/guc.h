/*
 * guc.h: the session settings a client has made (or a server connection carries), so that transaction
 * pooling does not lose them: before a client's first statement on a server, guc_difference() gives the
 * SQL that makes the server's settings the client's.
 *
 * A set remembers what differs from the server's own defaults: name and value as SQL ("'UTC'", "42",
 * "'a', 'b'"). Sets carry a hash of their content, so that comparing equal ones costs one compare.
 *
 * Settings made inside a transaction are provisional: they count for the client at commit and are
 * forgotten at rollback (to a savepoint: down to its mark).
 */
#ifndef PGSHUNT_PROXY_GUC_H
#define PGSHUNT_PROXY_GUC_H

#include <stdbool.h>
#include <stdint.h>

#include "pgshunt/buffer.h"

struct guc {
    char *name;  /* lower case */
    char *value; /* SQL; NULL: reset to default (only in provisional lists) */
};

struct guc_set {
    struct guc *items; /* sorted by name */
    int count;
    int capacity;
    uint64_t hash; /* 0 for the empty set */
};

/* value NULL removes the setting. */
void guc_set_put(struct guc_set *set, const char *name, const char *value);
/* A plain (unquoted) value, as startup packets have it. */
void guc_set_put_text(struct guc_set *set, const char *name, const char *text);
const char *guc_set_get(const struct guc_set *set, const char *name);
void guc_set_clear(struct guc_set *set); /* RESET ALL */
void guc_set_copy(struct guc_set *to, const struct guc_set *from);
void guc_set_free(struct guc_set *set);
static inline bool guc_set_equal(const struct guc_set *a, const struct guc_set *b)
{
    return a->hash == b->hash && a->count == b->count;
}
/* Appends "SET a TO 'x';RESET b;..." that turns `from` into `to`. */
void guc_difference(const struct guc_set *from, const struct guc_set *to, struct buffer *sql);

/* Settings of a transaction not yet committed, in order. */
struct guc_pending {
    struct guc *items;
    int count;
    int capacity;
};

/* name NULL: RESET ALL. value NULL: reset. */
void guc_pending_add(struct guc_pending *pending, const char *name, const char *value);
void guc_pending_truncate(struct guc_pending *pending, int count);
void guc_pending_apply(const struct guc_pending *pending, struct guc_set *set);
void guc_pending_free(struct guc_pending *pending);

#endif

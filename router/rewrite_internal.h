/* rewrite_internal.h: what the rewrite*.c files share: a statement's tree, open for changes. */
#ifndef PGSHUNT_ROUTER_REWRITE_INTERNAL_H
#define PGSHUNT_ROUTER_REWRITE_INTERNAL_H

#include "router/pgtree.h"

#include "router/rewrite.h"

struct rewriting {
    const char *text;
    MemoryContext context; /* everything of Postgres' lives here */
    PgQueryInternalParsetreeAndError parsed;
    Node *statement; /* the query inside, also of an EXPLAIN; NULL: there is none */
};

void rewrite_open(struct rewriting *r, const char *text);
/* Turns the changed tree into text and closes. False: it could not be. */
bool rewrite_close(struct rewriting *r, struct arena *arena, struct shard_query *out);
/* Closes without a result; returns false. */
bool rewrite_abandon(struct rewriting *r);

#endif

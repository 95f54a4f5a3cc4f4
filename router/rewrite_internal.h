/* rewrite_internal.h: what the rewrite*.c files share: a statement's tree, open for changes. */
#ifndef PGSHUNT_ROUTER_REWRITE_INTERNAL_H
#define PGSHUNT_ROUTER_REWRITE_INTERNAL_H

#include "router/pgtree.h"

#include "router/rewrite.h"

/* libpg_query exports it without a header. */
PgQueryProtobuf pg_query_nodes_to_protobuf(const void *obj);

struct rewriting {
    const char *text;
    MemoryContext context; /* everything of Postgres' lives here */
    PgQueryInternalParsetreeAndError parsed;
    Node *statement; /* the query inside, also of an EXPLAIN; NULL: there is none */
    int nparams;     /* highest $n of the text; -1: not counted yet */
};

void rewrite_open(struct rewriting *r, const char *text);
/* The changed tree in a form that rewrite_text() turns into text. */
PgQueryProtobuf rewrite_pack(struct rewriting *r);
/* Frees `packed`; the tree must be again what was packed, for that is checked. False: it could not be. */
bool rewrite_text(struct rewriting *r, PgQueryProtobuf packed, struct arena *arena,
                  struct shard_query *out);
/* Both of these, and closes. */
bool rewrite_close(struct rewriting *r, struct arena *arena, struct shard_query *out);
#define REWRITE_MAX_TEXTS 8
/* Several texts of one statement, which stays open. All trees are packed before the first becomes text: that changes
 * the memory context. At most REWRITE_MAX_TEXTS. */
bool rewrite_all(struct rewriting *r, Node **trees, struct shard_query **out, int count,
                 struct arena *arena);
/* VALUES of a mark alone, in the place of rows; */
Node *rewrite_marked_values(void);
/* ... and the text of tail->sql in two, in front of these VALUES and behind them. */
bool rewrite_cut_rows(struct arena *arena, const char **head, struct shard_query *tail);
/* A walker: there is a subquery in an expression. */
bool rewrite_finds_sublink(Node *node, void *context);
/* Closes without a result; returns false. */
bool rewrite_abandon(struct rewriting *r);

/* The name in quotes. */
void rewrite_put_name(struct buffer *out, const char *name);

/* tableoid::text || ctid::text, of `alias` (NULL: without): what tells rows of a partitioned table apart. */
Node *rewrite_partition_row(const char *alias);

#endif

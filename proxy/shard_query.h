/* shard_query.h: one shard's part of a plan as messages: a Query, or Parse and Bind with its parameters. */
#ifndef PGSHUNT_PROXY_SHARD_QUERY_H
#define PGSHUNT_PROXY_SHARD_QUERY_H

#include "proxy/session.h"

/* Result formats of a Bind. */
enum shard_formats {
    SHARD_TEXT,
    SHARD_BINARY,
    SHARD_AS_ASKED, /* as the client's Bind has them */
};

struct shard_form {
    enum shard_formats formats;
    int hidden; /* last columns that are not the client's: as text where it names formats one by one */
    bool describe;
    const char *name; /* of the statement on the server; NULL: the unnamed one */
    bool there;       /* which is parsed already */
};

/*
 * A Query where the client sent one, else Parse, Bind, (Describe,) Execute and Sync: one ReadyForQuery
 * follows. Text is what a Query gives, so SHARD_BINARY makes it the latter in any case; values of its own do, too. */
void shard_query_put(const struct scatter_ask *ask, const struct shard_query *query,
                     const struct shard_form *form, struct buffer *out);
/* The types its Parse declares, to be freed. */
uint32_t *shard_query_types(const struct scatter_ask *ask, const struct shard_query *query,
                            int *count);

/* Parse, Bind and Describe of a portal with a name. */
void shard_query_put_portal(const struct scatter_ask *ask, const struct shard_query *query,
                            enum shard_formats formats, int hidden, const char *portal,
                            struct buffer *out);

#endif

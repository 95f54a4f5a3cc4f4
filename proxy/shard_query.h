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

/*
 * A Query where the client sent one, else Parse, Bind, (Describe,) Execute and Sync: one ReadyForQuery
 * follows. Text is what a Query gives, so SHARD_BINARY makes it the latter in any case. The last `hidden`
 * columns are not the client's: they come as text where it names formats column by column.
 */
void shard_query_put(const struct scatter_ask *ask, const struct shard_query *query,
                     enum shard_formats formats, int hidden, bool describe, struct buffer *out);

/* Parse, Bind and Describe of a portal with a name. */
void shard_query_put_portal(const struct scatter_ask *ask, const struct shard_query *query,
                            enum shard_formats formats, int hidden, const char *portal,
                            struct buffer *out);

#endif

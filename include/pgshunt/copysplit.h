/*
 * copysplit.h: the rows of a COPY FROM, cut out of its stream and given to the shards of their keys.
 *
 * Pure and incremental: bytes come in pieces of any size, and each row goes whole, as it came, to the
 * buffer of its shard. Where a row ends and what its fields hold is found as Postgres finds it (text
 * and csv: copyfromparse.c's rules of escapes, quotes, newlines and "\."; binary: header, tuples,
 * trailer). The header goes to every shard, the end marker of text to none. A row whose shard cannot
 * be known for certain is never given to any: the COPY fails.
 */
#ifndef PGSHUNT_COPYSPLIT_H
#define PGSHUNT_COPYSPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"
#include "pgshunt/shardmap.h"

enum copy_format { COPY_TEXT, COPY_CSV, COPY_BINARY };

/* A column of the shard key. */
struct copy_key_column {
    const char *name;    /* for messages */
    int field;           /* which one of a row's it is, the first is 0 */
    uint32_t type;       /* the column's, 0: not known */
    bool force_null;     /* also quoted it is NULL */
    bool force_not_null; /* it is no NULL, but that text */
};

/* What a COPY says of its rows. */
struct copy_rows {
    enum copy_format format;
    char delimiter, quote, escape; /* escape is the quote where nothing else is said */
    bool header;
    const char *null;                /* what stands for NULL */
    const char *default_;            /* ... for the column's default; NULL: nothing does */
    const char *encoding;            /* ENCODING; NULL: the session's */
    bool force_quote;                /* of all columns: COPY TO */
    bool only_ascii_keys;            /* text keys are not in UTF-8 */
    int columns;                     /* fields of a row; 0: not known */
    const char *table;               /* for messages */
    const struct keyspace *keyspace; /* NULL: every row is for every shard (or it is a COPY TO) */
    const struct shardmap *map;
    unsigned nkeys; /* columns of the key, in the keyspace's order */
    struct copy_key_column keys[SHARDMAP_MAX_PARTS];
};

/* Whether characters of the client encoding may have bytes that are ASCII: newlines cannot be told then. */
bool copy_encoding_hides_ascii(const char *encoding);

struct copy_split;

/* `rows` has to outlive it. No row may be longer than `most` bytes while its key is not seen. */
struct copy_split *copy_split_new(const struct copy_rows *rows, size_t most);
void copy_split_free(struct copy_split *split);
/* Appends rows to parts[shard]. False: copy_split_error(), and nothing more is taken. */
MUST_CHECK bool copy_split_feed(struct copy_split *split, const char *bytes, size_t len,
                                struct buffer *parts);
/* There is no more: a last line may lack its newline. */
MUST_CHECK bool copy_split_end(struct copy_split *split, struct buffer *parts);
/* Which line of the stream (or row of the binary format) the one is that a shard calls so. 0: that is not
 * known (any more). */
int64_t copy_split_line(const struct copy_split *split, unsigned shard, int64_t part_line);
/* Lives as long as `split`. */
const struct pg_error *copy_split_error(const struct copy_split *split);

#endif

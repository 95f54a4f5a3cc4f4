/* copysplit_internal.h: what the parts of the splitter of COPY FROM share. */
#ifndef PGSHUNT_COPYSPLIT_INTERNAL_H
#define PGSHUNT_COPYSPLIT_INTERNAL_H

#include "pgshunt/arena.h"
#include "pgshunt/copysplit.h"
#include "router/copysplit_log.h"

enum copy_eol { EOL_UNKNOWN, EOL_NL, EOL_CR, EOL_CRNL };

/* The columns of the key in the order in which a row has them. */
struct key_step {
    int skip;      /* delimiters to be passed */
    unsigned part; /* of the key */
};

struct copy_split {
    const struct copy_rows *rows;
    size_t most;
    unsigned nshards;
    bool plain_digits; /* a field of digits alone is an integer key, and neither NULL nor DEFAULT */
    struct key_step steps[SHARDMAP_MAX_PARTS];
    struct buffer carry;                        /* the start of a row whose end has not come */
    struct buffer unquoted[SHARDMAP_MAX_PARTS]; /* parts of a key without their escapes */
    /* of the row at hand, which is not whole: */
    size_t scanned; /* bytes of it that were looked at */
    bool in_quote;  /* csv: they end within quotes */
    bool passing;   /* its start was given to `target` already */
    unsigned target;
    enum copy_eol eol;  /* as the first line has it */
    bool started;       /* the header is behind us */
    bool done;          /* the end marker was there */
    int64_t line;       /* at which the row at hand begins, the first is 1 */
    int64_t more_lines; /* of it, within quotes */
    struct row_log log;
    bool failed;
    struct pg_error error;
    struct arena arena; /* of the error */
};

enum copy_key { COPY_KEY_VALUE, COPY_KEY_NULL, COPY_KEY_DEFAULT, COPY_KEY_ABSENT };

/* A part of the key of a row of text or csv, without its newline. `whole`: else the row goes on, and a
 * field that reaches its end is ABSENT. The value may point into split->unquoted[part]. */
enum copy_key copy_text_key(struct copy_split *split, unsigned part, const char *row,
                            const char *end, bool whole, const char **value, size_t *length);
/* Always false. */
bool copy_split_fail(struct copy_split *split, const char *sqlstate, const char *hint,
                     const char *message, ...) __attribute__((format(printf, 4, 5)));
/* A part of a key, from its value. False: failed. */
bool copy_split_key(struct copy_split *split, unsigned part, const char *value, size_t length,
                    bool binary, struct shardkey *key);
/* The shard of a key with all its parts, of which the first was `value`. False: failed. */
bool copy_split_shard(struct copy_split *split, const struct shardkey *keys, const char *value,
                      size_t length, bool binary, unsigned *shard);
/* Fails: it is NULL or DEFAULT. */
bool copy_split_no_key(struct copy_split *split, unsigned part, enum copy_key key);
void copy_split_to_all(struct copy_split *split, const char *bytes, size_t len,
                       struct buffer *parts);

/* Gives out all whole rows (`last`: nothing follows). Returns the bytes used. */
size_t copy_split_lines(struct copy_split *split, const char *bytes, size_t len, bool last,
                        struct buffer *parts);
size_t copy_split_tuples(struct copy_split *split, const char *bytes, size_t len,
                         struct buffer *parts);

#endif

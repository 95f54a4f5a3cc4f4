/* copysplit_internal.h: what the parts of the splitter of COPY FROM share. */
#ifndef PGSHUNT_COPYSPLIT_INTERNAL_H
#define PGSHUNT_COPYSPLIT_INTERNAL_H

#include "pgshunt/arena.h"
#include "pgshunt/copysplit.h"
#include "router/copysplit_log.h"

enum copy_eol { EOL_UNKNOWN, EOL_NL, EOL_CR, EOL_CRNL };

struct copy_split {
    const struct copy_rows *rows;
    size_t most;
    unsigned nshards;
    bool plain_digits; /* a field of digits alone is an integer key, and neither NULL nor DEFAULT */
    struct buffer carry;    /* the start of a row whose end has not come */
    struct buffer unquoted; /* a key without its escapes */
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

/* The key of a row of text or csv, without its newline. `whole`: else the row goes on, and a field that
 * reaches its end is ABSENT. The value may point into split->unquoted. */
enum copy_key copy_text_key(struct copy_split *split, const char *row, const char *end, bool whole,
                            const char **value, size_t *length);
/* Always false. */
bool copy_split_fail(struct copy_split *split, const char *sqlstate, const char *hint,
                     const char *message, ...) __attribute__((format(printf, 4, 5)));
/* The shard of a key's value. False: failed. */
bool copy_split_shard(struct copy_split *split, const char *value, size_t length, bool binary,
                      unsigned *shard);
bool copy_split_no_key(struct copy_split *split, enum copy_key key); /* fails: NULL or DEFAULT */
void copy_split_to_all(struct copy_split *split, const char *bytes, size_t len,
                       struct buffer *parts);

/* Gives out all whole rows (`last`: nothing follows). Returns the bytes used. */
size_t copy_split_lines(struct copy_split *split, const char *bytes, size_t len, bool last,
                        struct buffer *parts);
size_t copy_split_tuples(struct copy_split *split, const char *bytes, size_t len,
                         struct buffer *parts);

#endif

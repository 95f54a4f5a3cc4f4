/*
 * copysplit_lines.c: where rows end in COPY's text and csv formats, and which shards they go to.
 *
 * All newlines are to be as the first one: a stream that mixes them could be cut differently by us and
 * by the shard that gets a part of it. Places of the bytes that matter are sought once (`struct scan`),
 * not once for each row.
 */
#include "router/copysplit_internal.h"

#include <string.h>

/* A row this long is given out before its end has come, as soon as its key is known. */
#define EARLY 65536
#define SHORT 64
#define MOST_DIGITS 18 /* fit into a bigint, whatever they are */

/* The next of each byte that matters; before the place at hand: not sought yet. */
struct scan {
    const char *end;
    bool last;
    const char *newline, *carriage_return, *special, *escape;
    const char *clear; /* of the row at hand: neither escape nor quote is ahead of this */
};

enum found { FOUND_ROW, FOUND_MARKER, FOUND_OPEN, FOUND_BAD };

static const char *seek(const char **cache, const char *at, const char *end, char c)
{
    if (!*cache || *cache < at) {
        const char *found = at < end ? memchr(at, c, (size_t)(end - at)) : NULL;
        *cache = found ? found : end;
    }
    return *cache;
}

static const char *nearest(const char *a, const char *b)
{
    return a < b ? a : b;
}

/* What is known at the first look at a row; of one that was begun in another piece nothing is. */
static void note_clear(const struct copy_split *split, struct scan *scan, const char *row,
                       const char *special, const char *stop)
{
    if (!scan->clear)
        scan->clear = split->scanned ? row : nearest(special, stop);
}

static enum found open_row(struct copy_split *split, const char *row, const char *at)
{
    split->scanned = (size_t)(at - row);
    return FOUND_OPEN;
}

static enum found bad_newline(struct copy_split *split, const char *what)
{
    copy_split_fail(split, "22P04",
                    split->rows->format == COPY_CSV
                        ? "Use quoted CSV field to represent newlines, and one kind of line ends."
                        : "Use \"\\n\" and \"\\r\" to represent them, and one kind of line ends.",
                    "%s found in data", what);
    return FOUND_BAD;
}

static enum found bad_marker(struct copy_split *split)
{
    copy_split_fail(split, "22P04", "\"\\.\" ends the data, on a line of its own.",
                    "end-of-copy marker is not alone on its line");
    return FOUND_BAD;
}

/* `at` is at a newline or carriage return that is no data. */
static enum found end_line(struct copy_split *split, const struct scan *scan, const char *row,
                           const char *at, const char **next)
{
    if (*at == '\n') {
        if (split->eol == EOL_CR || split->eol == EOL_CRNL)
            return bad_newline(split, "literal newline");
        split->eol = EOL_NL;
        *next = at + 1;
        return FOUND_ROW;
    }
    if (split->eol == EOL_NL)
        return bad_newline(split, "literal carriage return");
    *next = at + 1;
    if (split->eol == EOL_CR)
        return FOUND_ROW;
    if (at + 1 == scan->end && !scan->last)
        return open_row(split, row, at);
    bool newline = at + 1 < scan->end && at[1] == '\n';
    if (!newline && split->eol == EOL_CRNL)
        return bad_newline(split, "literal carriage return");
    split->eol = newline ? EOL_CRNL : EOL_CR;
    *next = at + 1 + newline;
    return FOUND_ROW;
}

/* There is no newline any more. */
static enum found end_of_input(struct copy_split *split, const struct scan *scan, const char *row,
                               const char *at, const char **end, const char **next)
{
    if (!scan->last)
        return open_row(split, row, at);
    *end = *next = scan->end;
    return FOUND_ROW;
}

/* A backslash and a dot at `at`. */
static enum found text_marker(struct copy_split *split, const struct scan *scan, const char *row,
                              const char *at)
{
    if (at != row || split->passing)
        return bad_marker(split);
    if (at + 2 == scan->end)
        return scan->last ? bad_marker(split) : open_row(split, row, at);
    return at[2] == '\n' || at[2] == '\r' ? FOUND_MARKER : bad_marker(split);
}

static enum found find_text(struct copy_split *split, struct scan *scan, const char *row,
                            const char **end, const char **next)
{
    const char *at = row + split->scanned;
    scan->clear = NULL;
    for (;;) {
        const char *newline = seek(&scan->newline, at, scan->end, '\n');
        const char *back = seek(&scan->special, at, scan->end, '\\');
        const char *stop = nearest(newline, seek(&scan->carriage_return, at, scan->end, '\r'));
        note_clear(split, scan, row, back, stop);
        if (back < stop) {
            if (back + 1 == scan->end)
                return end_of_input(split, scan, row, back, end, next);
            if (back[1] == '.')
                return text_marker(split, scan, row, back);
            at = back + 2;
            continue;
        }
        *end = stop;
        return stop == scan->end ? end_of_input(split, scan, row, stop, end, next)
                                 : end_line(split, scan, row, stop, next);
    }
}

/* Whether the line is "\.". OPEN: cannot be told yet; BAD: it is not (or an error was raised). */
static enum found csv_marker(struct copy_split *split, const struct scan *scan, const char *row)
{
    size_t left = (size_t)(scan->end - row);
    if (row[0] != '\\' || split->passing || split->scanned)
        return FOUND_BAD;
    if (left < 3 && !scan->last && (left < 2 || row[1] == '.'))
        return open_row(split, row, row);
    if (left < 3 || row[1] != '.' || (row[2] != '\n' && row[2] != '\r'))
        return FOUND_BAD;
    if (split->rows->columns != 1) /* the end up to Postgres 17, a row of too few fields then */
        return FOUND_MARKER;
    return bad_marker(split);
}

/* Newlines that are data make lines all the same. */
static void count_lines(struct copy_split *split, struct scan *scan, const char *at,
                        const char *end)
{
    bool cr = split->eol == EOL_CR;
    const char **cache = cr ? &scan->carriage_return : &scan->newline;
    while ((at = seek(cache, at, scan->end, cr ? '\r' : '\n')) < end) {
        split->more_lines++;
        at++;
    }
}

/* Within quotes, from `at` on: where they end, or NULL: not here. */
static const char *skip_quoted(struct copy_split *split, struct scan *scan, const char **at)
{
    const struct copy_rows *rows = split->rows;
    for (;;) {
        const char *quote = seek(&scan->special, *at, scan->end, rows->quote);
        const char *escape = rows->escape == rows->quote
                                 ? scan->end
                                 : seek(&scan->escape, *at, scan->end, rows->escape);
        if (escape < quote && escape + 1 < scan->end) {
            *at = escape + 2;
            continue;
        }
        *at = nearest(quote, escape);
        return quote < escape ? quote : NULL;
    }
}

static const char *close_quote(struct copy_split *split, struct scan *scan, const char **at)
{
    const char *from = *at, *quote = skip_quoted(split, scan, at);
    count_lines(split, scan, from, *at);
    return quote;
}

static enum found find_csv(struct copy_split *split, struct scan *scan, const char *row,
                           const char **end, const char **next)
{
    const char *at = row + split->scanned;
    enum found marker = csv_marker(split, scan, row);
    if (marker != FOUND_BAD || split->failed)
        return marker;
    scan->clear = split->in_quote ? row : NULL;
    for (;;) {
        if (split->in_quote) {
            const char *quote = close_quote(split, scan, &at);
            if (!quote)
                return end_of_input(split, scan, row, at, end, next);
            split->in_quote = false;
            at = quote + 1;
        }
        const char *newline = seek(&scan->newline, at, scan->end, '\n');
        const char *quote = seek(&scan->special, at, scan->end, split->rows->quote);
        const char *stop = nearest(newline, seek(&scan->carriage_return, at, scan->end, '\r'));
        note_clear(split, scan, row, quote, stop);
        if (quote < stop) {
            split->in_quote = true;
            at = quote + 1;
            continue;
        }
        *end = stop;
        return stop == scan->end ? end_of_input(split, scan, row, stop, end, next)
                                 : end_line(split, scan, row, stop, next);
    }
}

/* ---- to the shards ---- */

/* Behind as many delimiters; NULL: they are not ahead of `clear`. */
static const char *skip_fields(const char *at, const char *clear, char delimiter, int count)
{
    for (; count > 0 && at; count--) {
        at = at < clear ? memchr(at, delimiter, (size_t)(clear - at)) : NULL;
        at = at ? at + 1 : NULL;
    }
    return at;
}

/* A field of digits alone: behind it; NULL: it is something else. */
static const char *read_digits(const char *at, const char *clear, const char *end, char delimiter,
                               int64_t *number)
{
    const char *digits = at;
    uint64_t value = 0;
    for (; at < clear && (unsigned)(*at - '0') < 10; at++)
        value = value * 10 + (unsigned)(*at - '0');
    bool closed = at < clear ? *at == delimiter : at == end;
    *number = (int64_t)value;
    return closed && at != digits && at - digits <= MOST_DIGITS ? at : NULL;
}

/*
 * Most keys are a few digits with nothing before them that needs care: these are had at a glance. False:
 * it is to be looked at in full. From `clear` on up to `end` there may be escapes and quotes.
 */
static bool glance(struct copy_split *split, const char *row, const char *clear, const char *end)
{
    const struct copy_rows *rows = split->rows;
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    const char *at = row;
    for (unsigned i = 0; i < rows->nkeys; i++) {
        const struct key_step *step = &split->steps[i];
        int64_t number;
        at = skip_fields(at, clear, rows->delimiter, step->skip);
        at = at ? read_digits(at, clear, end, rows->delimiter, &number) : NULL;
        if (!at)
            return false;
        shardkey_of_bigint(number, &keys[step->part]);
    }
    split->target = shardmap_shard_of_row(rows->map, rows->keyspace, keys);
    return split->target != SHARDMAP_NO_SHARD;
}

/* VALUE: split->target is its shard, or it failed; else: what *part of the key is. */
static enum copy_key look_for_key(struct copy_split *split, const char *row, const char *end,
                                  bool whole, unsigned *part)
{
    struct shardkey keys[SHARDMAP_MAX_PARTS];
    const char *value, *first = NULL;
    size_t length, first_length = 0;
    for (*part = 0; *part < split->rows->nkeys; ++*part) {
        enum copy_key key = copy_text_key(split, *part, row, end, whole, &value, &length);
        if (key != COPY_KEY_VALUE)
            return key;
        if (!copy_split_key(split, *part, value, length, false, &keys[*part]))
            return COPY_KEY_VALUE;
        first = *part ? first : value;
        first_length = *part ? first_length : length;
    }
    copy_split_shard(split, keys, first, first_length, false, &split->target);
    return COPY_KEY_VALUE;
}

/* A row that lacks the key is refused by whichever shard. */
static bool find_target(struct copy_split *split, const struct scan *scan, const char *row,
                        const char *end)
{
    unsigned part;
    if (split->plain_digits && !split->scanned && glance(split, row, scan->clear, end))
        return true;
    enum copy_key key = look_for_key(split, row, end, true, &part);
    switch (key) {
    case COPY_KEY_VALUE:
        return !split->failed;
    case COPY_KEY_NULL:
    case COPY_KEY_DEFAULT:
        return copy_split_no_key(split, part, key);
    case COPY_KEY_ABSENT:
        split->target = 0;
        return true;
    }
    return false;
}

/* A short row is copied with what is behind it, in steps of a fixed size: that is quicker than to the point. */
static void append(struct buffer *part, const struct scan *scan, const char *row, size_t len)
{
    if (len > SHORT || scan->end - row < SHORT || part->cap - part->end < SHORT) {
        buffer_append(part, row, len);
        return;
    }
    memcpy(part->data + part->end, row, SHORT / 2);
    if (len > SHORT / 2)
        memcpy(part->data + part->end + SHORT / 2, row + SHORT / 2, SHORT / 2);
    part->end += len;
}

static void give_row(struct copy_split *split, const struct scan *scan, const char *row,
                     const char *end, const char *next, struct buffer *parts)
{
    int64_t lines = 1 + split->more_lines;
    if (!split->started && split->rows->header) {
        copy_split_to_all(split, row, (size_t)(next - row), parts);
        row_log_put_header(&split->log, lines);
    } else if (split->passing || find_target(split, scan, row, end)) {
        append(&parts[split->target], scan, row, (size_t)(next - row));
        row_log_put(&split->log, split->target, lines);
    }
    if (split->failed) /* its line is told */
        return;
    split->started = true;
    split->passing = false;
    split->scanned = 0;
    split->in_quote = false;
    split->more_lines = 0;
    split->line += lines;
}

/* The start of a long row, as far as it was looked at. Returns what was given out. */
static size_t give_early(struct copy_split *split, const char *row, struct buffer *parts)
{
    unsigned part;
    size_t scanned = split->scanned;
    if (scanned < EARLY || (!split->started && split->rows->header))
        return 0;
    if (!split->passing) {
        if (look_for_key(split, row, row + scanned, false, &part) != COPY_KEY_VALUE ||
            split->failed)
            return 0;
        split->passing = true;
    }
    buffer_append(&parts[split->target], row, scanned);
    split->scanned = 0;
    return scanned;
}

size_t copy_split_lines(struct copy_split *split, const char *bytes, size_t len, bool last,
                        struct buffer *parts)
{
    struct scan scan = {.end = bytes + len, .last = last};
    const char *row = bytes, *end, *next;
    bool csv = split->rows->format == COPY_CSV;
    while (row < scan.end && !split->failed) {
        enum found found = csv ? find_csv(split, &scan, row, &end, &next)
                               : find_text(split, &scan, row, &end, &next);
        if (found == FOUND_MARKER) {
            if (csv)
                copy_split_to_all(split, row, 3, parts);
            split->started = split->done = true;
            return len;
        }
        if (found == FOUND_OPEN)
            return (size_t)(row - bytes) + give_early(split, row, parts);
        if (found == FOUND_BAD)
            break;
        give_row(split, &scan, row, end, next, parts);
        row = next;
    }
    return split->failed ? len : (size_t)(row - bytes);
}

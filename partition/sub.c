/* sub.c: how partitions are divided again: read, and put as SQL. */
#include "partition/sub.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUFFIX_LETTERS 24

static const char how[] = "it takes hash:COLUMN:8, list:COLUMN:de,fr,us (:default for all others), "
                          "range:1day, or none";

/* ---- reading ---- */

/* Up to one of `stops` that is not quoted; *quoted: some of it was. NULL: a quote is not closed. */
static const char *take_word(struct arena *arena, const char **at, const char *stops, bool *quoted)
{
    char *word = arena_alloc(arena, strlen(*at) + 1), *to = word;
    bool inside = *quoted = false;
    for (; **at && (inside || !strchr(stops, **at)); (*at)++) {
        if (**at != '"')
            *to++ = **at;
        else if (inside && (*at)[1] == '"')
            *to++ = *++*at;
        else {
            inside = !inside;
            *quoted = true;
        }
    }
    *to = '\0';
    return inside ? NULL : word;
}

static bool take(const char **at, char letter)
{
    bool is = **at == letter;
    *at += is;
    return is;
}

static const char *read_hash(const char *at, struct sub *sub)
{
    char *end;
    long count = strtol(at, &end, 10);
    if (!isdigit((unsigned char)*at) || *end || count < 1 || count > SUB_MOST)
        return "hash:COLUMN: takes a number from 1 to 1000 behind it";
    sub->count = (int)count;
    return NULL;
}

/* Of the first value what can be in a name without quotes. */
static const char *suffix_of(struct arena *arena, const char *value)
{
    char suffix[SUFFIX_LETTERS + 2] = "_";
    size_t length = 1;
    for (const char *c = value ? value : "null"; *c && length <= SUFFIX_LETTERS; c++)
        if (isalnum((unsigned char)*c) || *c == '_')
            suffix[length++] = (char)tolower((unsigned char)*c);
    suffix[length] = '\0';
    return arena_strdup(arena, suffix);
}

/* One that another has, or that is none, has a number. */
static void tell_apart(struct arena *arena, struct sub *sub, int which)
{
    const char *suffix = sub->lists[which].suffix;
    bool taken = !suffix[1] || strcmp(suffix, "_default") == 0;
    for (int i = 0; i < which; i++)
        taken |= strcmp(sub->lists[i].suffix, suffix) == 0;
    if (taken)
        sub->lists[which].suffix = arena_printf(arena, "_v%d_", which + 1);
}

static const char *read_values(struct arena *arena, const char **at, struct sub_values *values)
{
    size_t most = 1;
    for (const char *c = *at; *c; c++)
        most += *c == '+';
    values->values = arena_array(arena, const char *, most);
    do {
        bool quoted;
        const char *value = take_word(arena, at, ",+:", &quoted);
        if (!value || (!*value && !quoted))
            return "a value is missing, or a quote is not closed";
        values->values[values->count++] = !quoted && strcmp(value, "null") == 0 ? NULL : value;
    } while (take(at, '+'));
    values->suffix = suffix_of(arena, values->values[0]);
    return NULL;
}

static const char *read_list(struct arena *arena, const char *at, struct sub *sub)
{
    int count = 0;
    sub->lists = arena_array(arena, struct sub_values, SUB_MOST);
    do {
        if (count == SUB_MOST - 1)
            return "these are too many values";
        sub->lists[count] = (struct sub_values){.count = 0};
        const char *why = read_values(arena, &at, &sub->lists[count]);
        if (why)
            return why;
        tell_apart(arena, sub, count++);
    } while (take(&at, ','));
    sub->has_default = strcmp(at, ":default") == 0;
    sub->count = count + sub->has_default;
    return *at && !sub->has_default ? how : NULL;
}

const char *sub_parse(struct arena *arena, const char *text, struct sub *sub)
{
    const char *at = text;
    bool quoted;
    *sub = (struct sub){.kind = SUB_NONE};
    if (strcmp(text, "none") == 0)
        return NULL;
    if (strncmp(text, "range:", 6) == 0) {
        sub->kind = SUB_RANGE;
        return interval_parse(text + 6, &sub->every) ? NULL : how;
    }
    sub->kind = strncmp(text, "hash:", 5) == 0   ? SUB_HASH
                : strncmp(text, "list:", 5) == 0 ? SUB_LIST
                                                 : SUB_NONE;
    if (sub->kind == SUB_NONE)
        return how;
    at += 5;
    sub->column = take_word(arena, &at, ":", &quoted);
    if (!sub->column || !*sub->column || !take(&at, ':'))
        return how;
    return sub->kind == SUB_HASH ? read_hash(at, sub) : read_list(arena, at, sub);
}

/* ---- as SQL ---- */

/* Between `quote`s, which are doubled in it. */
static const char *put_quoted(struct arena *arena, const char *text, char quote)
{
    bool escapes = quote == '\'' && strchr(text, '\\');
    char *out = arena_alloc(arena, 2 * strlen(text) + 4), *to = out;
    if (escapes)
        *to++ = 'E';
    *to++ = quote;
    for (; *text; text++) {
        if (*text == quote || (escapes && *text == '\\'))
            *to++ = *text;
        *to++ = *text;
    }
    *to++ = quote;
    *to = '\0';
    return out;
}

const char *sub_by_text(struct arena *arena, const struct sub *sub, const char *column)
{
    if (sub->kind == SUB_NONE)
        return "";
    if (sub->kind == SUB_RANGE)
        return arena_printf(arena, " PARTITION BY RANGE (%s)", column);
    return arena_printf(arena, " PARTITION BY %s (%s)", sub->kind == SUB_HASH ? "HASH" : "LIST",
                        put_quoted(arena, sub->column, '"'));
}

const char *sub_bound_text(struct arena *arena, const struct sub *sub, int part)
{
    if (sub->kind == SUB_HASH)
        return arena_printf(arena, "FOR VALUES WITH (MODULUS %d, REMAINDER %d)", sub->count, part);
    if (sub->has_default && part == sub->count - 1)
        return "DEFAULT";
    const struct sub_values *values = &sub->lists[part];
    const char *text = "";
    for (int i = 0; i < values->count; i++)
        text =
            arena_printf(arena, "%s%s%s", text, i ? ", " : "",
                         values->values[i] ? put_quoted(arena, values->values[i], '\'') : "NULL");
    return arena_printf(arena, "FOR VALUES IN (%s)", text);
}

void sub_name(struct arena *arena, const struct sub *sub, const char *partition, int part,
              char name[NAME_SIZE])
{
    const struct interval none = {UNIT_NUMBER, 1};
    bool rest = sub->has_default && part == sub->count - 1;
    name_of(partition,
            sub->kind == SUB_HASH ? arena_printf(arena, "_h%d", part)
            : rest                ? "_default"
                                  : sub->lists[part].suffix,
            &none, 0, name);
}

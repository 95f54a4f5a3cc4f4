/* parse_prepare.c: where the names, types and values of PREPARE, EXECUTE and DEALLOCATE are in their text. */
#include "router/parse_internal.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/buffer.h"
#include "pgshunt/prepare_text.h"

/* A word, or "quoted". U&"..." is left alone. */
static bool read_name(struct scan *scan, struct text_span *name)
{
    struct token token = scan_next_word(scan);
    if (token.kind != SCAN_WORD && token.kind != SCAN_QUOTED)
        return false;
    if (token.kind == SCAN_WORD && scan_is(scan, &token, "U") && scan->at < scan->end &&
        scan->text[scan->at] == '&')
        return false;
    *name = (struct text_span){token.start, token.end};
    return true;
}

static int opens(const struct scan *scan, const struct token *token)
{
    if (scan_is(scan, token, "(") || scan_is(scan, token, "["))
        return 1;
    return scan_is(scan, token, ")") || scan_is(scan, token, "]") ? -1 : 0;
}

static void add_arg(struct prepare_text *out, struct arena *arena, size_t start, size_t end)
{
    out->args = parse_grow(arena, out->args, out->nargs, sizeof *out->args);
    out->args[out->nargs++] = (struct text_span){start, end};
}

/* From behind the opening parenthesis to behind the closing one. */
static bool read_args(struct scan *scan, struct arena *arena, struct prepare_text *out)
{
    size_t start = scan->at;
    for (int depth = 1;;) {
        struct token token = scan_next_word(scan);
        if (token.kind == SCAN_END)
            return false;
        depth += opens(scan, &token);
        if (depth == 0 || (depth == 1 && scan_is(scan, &token, ","))) {
            add_arg(out, arena, start, token.start);
            start = token.end;
        }
        if (depth == 0)
            return true;
    }
}

static bool read_prepare(struct scan *scan, struct arena *arena, struct prepare_text *out)
{
    size_t tail = scan->at;
    struct token token = scan_next_word(scan);
    if (scan_is(scan, &token, "(")) {
        if (!read_args(scan, arena, out))
            return false;
        token = scan_next_word(scan);
    }
    out->tail = arena_strndup(arena, scan->text + tail, scan->end - tail);
    out->query = arena_strndup(arena, scan->text + token.end, scan->end - token.end);
    return scan_is(scan, &token, "AS");
}

bool prepare_text(const struct statement *statement, struct arena *arena, struct prepare_text *out)
{
    struct scan scan = {statement->text, 0, strlen(statement->text)};
    *out = (struct prepare_text){0};
    scan_next_word(&scan); /* the verb */
    if (statement->kind == STMT_DEALLOCATE) {
        struct scan ahead = scan;
        struct token token = scan_next_word(&ahead);
        struct scan further = ahead;
        if (scan_is(&ahead, &token, "PREPARE") && scan_next_word(&further).kind != SCAN_END)
            scan = ahead;
    }
    if (!read_name(&scan, &out->name))
        return false;
    if (statement->kind == STMT_PREPARE)
        return read_prepare(&scan, arena, out);
    out->end = scan.at;
    struct token token = scan_next_word(&scan);
    if (!scan_is(&scan, &token, "("))
        return true;
    bool closed = read_args(&scan, arena, out);
    out->end = scan.at;
    return closed;
}

/* ---- values in place of parameters ---- */

static void put_text(struct buffer *out, const char *text)
{
    buffer_append(out, text, strlen(text));
}

/* The value may end in a comment up to the line's end. */
static void put_value(struct buffer *out, const char *value, const char *type)
{
    put_text(out, "(");
    put_text(out, value);
    put_text(out, strstr(value, "--") ? "\n)" : ")");
    if (!type)
        return;
    put_text(out, "::");
    put_text(out, type);
}

/* The number behind a '$' at `at`, and where it ends; 0: none. */
static int parameter_at(const char *text, size_t at, size_t *end)
{
    long number = 0;
    size_t to = at + 1;
    while (text[to] >= '0' && text[to] <= '9' && number < 100000)
        number = number * 10 + (text[to++] - '0');
    *end = to;
    return text[at] == '$' ? (int)number : 0;
}

const char *prepare_substitute(const char *query, const char *const *types, int ntypes,
                               const char *const *values, int nvalues, struct arena *arena)
{
    struct scan scan = {query, 0, strlen(query)};
    struct buffer out = {0};
    size_t copied = 0, end;
    for (struct token token = scan_next(&scan); token.kind != SCAN_END; token = scan_next(&scan)) {
        if (token.kind != SCAN_OTHER)
            continue;
        int number = parameter_at(query, token.start, &end);
        if (number < 1 || number > nvalues)
            continue;
        buffer_append(&out, query + copied, token.start - copied);
        put_value(&out, values[number - 1], number <= ntypes ? types[number - 1] : NULL);
        copied = scan.at = end;
    }
    put_text(&out, query + copied);
    buffer_append(&out, "", 1);
    char *text = arena_strdup(arena, buffer_head(&out));
    buffer_release(&out);
    return text;
}

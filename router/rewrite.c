/* rewrite.c: from text to Postgres' tree and back, and parameters numbered without gaps. */
#include "router/rewrite_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "router/parse_internal.h"

/* As many as the protocol has. */
#define MAX_PARAMS 65535

static Node *only_statement(List *tree)
{
    if (list_length(tree) != 1)
        return NULL;
    Node *node = ((RawStmt *)linitial(tree))->stmt;
    return IsA(node, ExplainStmt) ? ((ExplainStmt *)node)->query : node;
}

void rewrite_open(struct rewriting *r, const char *text)
{
    r->text = text;
    r->nparams = -1;
    r->context = pg_query_enter_memory_context();
    r->parsed = pgtree_parse(text);
    r->statement = r->parsed.error ? NULL : only_statement(r->parsed.tree);
}

static void close_parser(struct rewriting *r)
{
    free(r->parsed.stderr_buffer);
    if (r->parsed.error)
        pg_query_free_error(r->parsed.error);
    pg_query_exit_memory_context(r->context);
}

bool rewrite_abandon(struct rewriting *r)
{
    close_parser(r);
    return false;
}

/* ---- parameters ---- */

/* Next `$n` outside of strings and names: its number, with where it stands; 0: no more. */
static int next_param(struct scan *scan, size_t *start, size_t *end)
{
    for (struct token token = scan_next(scan); token.kind != SCAN_END; token = scan_next(scan)) {
        const char *at = scan->text + token.start;
        if (token.kind != SCAN_OTHER || *at != '$' || !isdigit((unsigned char)at[1]))
            continue;
        char *after;
        long number = strtol(at + 1, &after, 10);
        *start = token.start;
        *end = (size_t)(after - scan->text);
        scan->at = *end;
        return number < 1 || number > MAX_PARAMS ? MAX_PARAMS : (int)number;
    }
    return 0;
}

/* Highest parameter in the text; used[n] is set for each up to `room` that is there. */
static int find_params(const char *text, bool *used, int room)
{
    struct scan scan = {text, 0, strlen(text)};
    size_t start, end;
    int number, highest = 0;
    while ((number = next_param(&scan, &start, &end)) > 0) {
        if (number <= room)
            used[number] = true;
        if (number > highest)
            highest = number;
    }
    return highest;
}

/* Writes out->sql anew with its parameters numbered 1, 2, 3... as out->params says. */
static void number_params(const char *sql, const int *new_number, struct arena *arena,
                          struct shard_query *out)
{
    struct buffer text = {0};
    struct scan scan = {sql, 0, strlen(sql)};
    size_t start, end, copied = 0;
    int number;
    while ((number = next_param(&scan, &start, &end)) > 0) {
        buffer_append(&text, sql + copied, start - copied);
        buffer_printf(&text, "$%d", new_number[number]);
        copied = end;
    }
    buffer_append(&text, sql + copied, strlen(sql + copied));
    out->sql = arena_strndup(arena, buffer_head(&text), buffer_length(&text));
    buffer_release(&text);
}

static void take_params(struct rewriting *r, const char *sql, struct arena *arena,
                        struct shard_query *out)
{
    if (r->nparams < 0)
        r->nparams = find_params(r->text, NULL, 0);
    int before = r->nparams, left = 0;
    out->sql = sql;
    out->params = NULL;
    out->nparams = 0;
    if (before == 0)
        return;
    bool *used = mem_alloc(sizeof *used * ((size_t)before + 1));
    int *new_number = mem_alloc(sizeof *new_number * ((size_t)before + 1));
    find_params(sql, used, before);
    for (int i = 1; i <= before; i++)
        left += used[i];
    if (left < before) {
        int *params = arena_array(arena, int, left ? left : 1);
        for (int i = 1; i <= before; i++)
            if (used[i]) {
                params[out->nparams++] = i - 1;
                new_number[i] = out->nparams;
            }
        out->params = params;
        number_params(sql, new_number, arena, out);
    }
    free(used);
    free(new_number);
}

/*
 * Whether the text means the tree it was made from: the deparser has gaps (it drops the parentheses of
 * (array[1, 2])[1]), and what a shard gets must never mean something else. equal() ignores locations.
 */
static bool means(const char *sql, const List *tree)
{
    MemoryContext context = pg_query_enter_memory_context();
    PgQueryInternalParsetreeAndError again = pgtree_parse(sql);
    bool same = !again.error && equal(again.tree, tree);
    free(again.stderr_buffer);
    if (again.error)
        pg_query_free_error(again.error);
    pg_query_exit_memory_context(context);
    return same;
}

/* The deparser writes FOR UPDATE OF tSKIP LOCKED. NULL: nothing of that kind is in the text. */
static const char *with_blanks(const char *sql, struct arena *arena)
{
    static const char *const words[] = {"SKIP LOCKED", "NOWAIT"};
    const char *mended = NULL;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const char *text = mended ? mended : sql;
        for (const char *at = text; (at = strstr(at, words[i]));) {
            size_t before = (size_t)(at - text), length = strlen(words[i]);
            bool glued = before && at[-1] != ' ';
            if (glued)
                mended = text = arena_printf(arena, "%.*s %s", (int)before, text, at);
            at = text + before + glued + length;
        }
    }
    return mended;
}

PgQueryProtobuf rewrite_pack(struct rewriting *r)
{
    RawStmt *raw = linitial(r->parsed.tree);
    raw->stmt = r->statement; /* what stands around it (EXPLAIN) is left out */
    return pg_query_nodes_to_protobuf(r->parsed.tree);
}

bool rewrite_text(struct rewriting *r, PgQueryProtobuf packed, struct arena *arena,
                  struct shard_query *out)
{
    PgQueryDeparseResult result = pg_query_deparse_protobuf(packed);
    const char *sql = result.error ? NULL : result.query;
    bool ok = sql && means(sql, r->parsed.tree);
    free(packed.data);
    if (sql && !ok)
        ok = (sql = with_blanks(sql, arena)) && means(sql, r->parsed.tree);
    if (ok)
        take_params(r, arena_strdup(arena, sql), arena, out);
    pg_query_free_deparse_result(result);
    return ok;
}

bool rewrite_close(struct rewriting *r, struct arena *arena, struct shard_query *out)
{
    bool ok = rewrite_text(r, rewrite_pack(r), arena, out);
    close_parser(r);
    return ok;
}

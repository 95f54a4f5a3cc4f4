/*
 * parse.c: SQL text to struct statement, by way of Postgres' own raw parser.
 *
 * Postgres' trees live in a memory context that is gone when statement_parse() returns; everything kept
 * is copied into the caller's arena. The parser itself keeps its stack on the heap (bison, at most
 * 10,000 levels, then it reports an error), but left-recursive text (1+1+1...) gives trees of any
 * depth: the conversion counts levels and gives up at STATEMENT_MAX_DEPTH.
 */
#include "router/parse_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- shared by the parse*.c files ---- */

void *parse_grow(struct arena *arena, void *items, int count, size_t size)
{
    enum { FIRST = 4 };
    if (count == 0)
        return arena_alloc(arena, FIRST * size);
    if (count < FIRST || (count & (count - 1)))
        return items;
    void *moved = arena_alloc(arena, 2 * (size_t)count * size);
    return memcpy(moved, items, (size_t)count * size);
}

bool parse_enter(struct convert *c)
{
    if (c->failed || c->depth >= STATEMENT_MAX_DEPTH) {
        c->failed = true;
        return false;
    }
    c->depth++;
    return true;
}

void parse_leave(struct convert *c)
{
    c->depth--;
}

int parse_location(const struct convert *c, int location)
{
    return location < c->base ? -1 : location - c->base;
}

char *parse_copy(const struct convert *c, const char *text)
{
    return text ? arena_strdup(c->arena, text) : NULL;
}

const char *parse_name(const struct convert *c, const List *names, const char **qualifier)
{
    int count = list_length(names);
    *qualifier = count > 1 ? parse_copy(c, strVal(list_nth(names, count - 2))) : NULL;
    return count > 0 ? parse_copy(c, strVal(list_nth(names, count - 1))) : "";
}

/* ---- one statement ---- */

static const char *query_tag(const struct query *query)
{
    switch (query->kind) {
    case QUERY_INSERT:
        return "INSERT";
    case QUERY_UPDATE:
        return "UPDATE";
    case QUERY_DELETE:
        return "DELETE";
    case QUERY_MERGE:
        return "MERGE";
    case QUERY_SELECT:
    case QUERY_VALUES:
    case QUERY_SETOP:
        break;
    }
    return "SELECT";
}

/* SELECT INTO creates a table: as CREATE TABLE AS, with the query as the inner statement. */
static void make_select_into(struct convert *c)
{
    struct statement *outer = c->statement, *inner = arena_new(c->arena, struct statement);
    *inner = *outer;
    inner->nhints = 0;
    inner->hints = NULL;
    outer->kind = STMT_CREATE_TABLE_AS;
    outer->tag = "SELECT INTO";
    outer->inner = inner;
    outer->query = NULL;
}

static void convert_statement(struct convert *c, Node *node)
{
    struct statement *statement = c->statement;
    if (!parse_is_query(node)) {
        parse_utility(c, node);
        if (!statement->tag)
            statement->tag = scan_tag(statement->text, (size_t)statement->length, c->arena);
        return;
    }
    statement->kind = STMT_QUERY;
    statement->query = parse_query(c, node);
    statement->tag = query_tag(statement->query);
    if (statement->facts & FACT_INTO)
        make_select_into(c);
}

/* Takes a piece of the parsed text as the statement's own: trimmed, copied, terminated. */
static void set_text(struct convert *c, size_t start, size_t end)
{
    const char *sql = c->sql;
    while (start < end && (sql[start] == ' ' || (sql[start] >= '\t' && sql[start] <= '\r')))
        start++;
    while (end > start && (sql[end - 1] == ' ' || (sql[end - 1] >= '\t' && sql[end - 1] <= '\r')))
        end--;
    c->base = (int)start;
    c->statement->location = (int)start;
    c->statement->length = (int)(end - start);
    c->statement->text = arena_strndup(c->arena, sql + start, end - start);
}

void parse_inner(struct convert *c, Node *node)
{
    struct statement *outer = c->statement, *inner = arena_new(c->arena, struct statement);
    size_t start, end, base = (size_t)c->base;
    if (!parse_enter(c))
        return;
    struct convert within = *c;
    within.statement = outer->inner = inner;
    if (scan_inner(outer->kind, outer->text, (size_t)outer->length, &start, &end))
        set_text(&within, base + start, base + end);
    else
        set_text(&within, base, base + (size_t)outer->length);
    convert_statement(&within, node);
    parse_leave(c);
    c->failed |= within.failed;
    outer->facts |= inner->facts;
    if (inner->max_param > outer->max_param)
        outer->max_param = inner->max_param;
    for (int i = 0; i < inner->nrelations; i++)
        parse_note_relation(c, inner->relations[i].schema, inner->relations[i].name,
                            inner->relations[i].written);
    for (int i = 0; i < inner->nfunctions; i++) {
        outer->functions =
            parse_grow(c->arena, outer->functions, outer->nfunctions, sizeof *outer->functions);
        outer->functions[outer->nfunctions++] = inner->functions[i];
    }
}

/* NULL: it is nested too deeply, or holds what we do not know. */
static struct statement *statement_from(const RawStmt *raw, const char *sql, size_t length,
                                        struct arena *arena, struct constant_list *constants)
{
    struct convert c = {.arena = arena,
                        .sql = sql,
                        .statement = arena_new(arena, struct statement),
                        .constants = constants};
    size_t start = raw->stmt_location > 0 ? (size_t)raw->stmt_location : 0;
    size_t end = raw->stmt_len > 0 ? start + (size_t)raw->stmt_len : length;
    set_text(&c, start, end);
    convert_statement(&c, raw->stmt);
    if (c.failed)
        return NULL;
    scan_hints(c.statement->text, (size_t)c.statement->length, arena, c.statement);
    return c.statement;
}

static struct statement_list not_understood(const char *sql, size_t length, struct arena *arena)
{
    struct statement *statement = arena_new(arena, struct statement);
    struct convert c = {.arena = arena, .sql = sql, .statement = statement};
    statement->kind = STMT_OTHER;
    statement->syntax_error = true;
    set_text(&c, 0, length);
    statement->tag = scan_tag(statement->text, (size_t)statement->length, arena);
    scan_hints(statement->text, (size_t)statement->length, arena, statement);
    struct statement **items = arena_array(arena, struct statement *, 1);
    items[0] = statement;
    return (struct statement_list){.items = items, .count = 1};
}

/* Comments behind the last semicolon belong to the last statement: that is where people append hints. */
static void hints_behind(const struct statement_list *list, const char *sql, size_t length,
                         struct arena *arena)
{
    if (list->count == 0)
        return;
    struct statement *last = list->items[list->count - 1];
    size_t end = (size_t)last->location + (size_t)last->length;
    if (end < length)
        scan_hints(sql + end, length - end, arena, last);
}

static struct statement_list convert_all(const List *tree, const char *sql, size_t length,
                                         struct arena *arena, struct constant_list *constants)
{
    struct statement_list list = {.count = list_length(tree)};
    list.items = list.count ? arena_array(arena, struct statement *, list.count) : NULL;
    for (int i = 0; i < list.count; i++) {
        list.items[i] = statement_from(list_nth(tree, i), sql, length, arena, constants);
        if (!list.items[i])
            return not_understood(sql, length, arena);
    }
    hints_behind(&list, sql, length, arena);
    return list;
}

static struct statement_list parse_text(const char *sql, struct arena *arena,
                                        struct constant_list *constants)
{
    size_t length = strlen(sql);
    struct statement_list list;
    if (length > INT_MAX / 2) /* offsets are ints */
        return not_understood(sql, INT_MAX / 2, arena);
    MemoryContext context = pg_query_enter_memory_context();
    PgQueryInternalParsetreeAndError result = pgtree_parse(sql);
    if (result.error) {
        list = not_understood(sql, length, arena);
        list.items[0]->syntax_message = arena_strdup(arena, result.error->message);
        list.items[0]->syntax_position = result.error->cursorpos;
    } else {
        list = convert_all(result.tree, sql, length, arena, constants);
    }
    /* Freed one by one: pg_query_exit() would end this thread's parser. */
    free(result.stderr_buffer);
    if (result.error)
        pg_query_free_error(result.error);
    pg_query_exit_memory_context(context);
    return list;
}

struct statement_list statement_parse(const char *sql, struct arena *arena)
{
    return parse_text(sql, arena, NULL);
}

struct statement_list statement_parse_constants(const char *sql, struct arena *arena,
                                                struct constant_list *constants)
{
    *constants = (struct constant_list){0};
    return parse_text(sql, arena, constants);
}

const char *statement_kind_name(enum statement_kind kind)
{
    static const char *names[] = {
        [STMT_EMPTY] = "empty",
        [STMT_QUERY] = "query",
        [STMT_BEGIN] = "begin",
        [STMT_COMMIT] = "commit",
        [STMT_ROLLBACK] = "rollback",
        [STMT_SAVEPOINT] = "savepoint",
        [STMT_RELEASE] = "release",
        [STMT_ROLLBACK_TO] = "rollback to savepoint",
        [STMT_PREPARE_TRANSACTION] = "prepare transaction",
        [STMT_COMMIT_PREPARED] = "commit prepared",
        [STMT_ROLLBACK_PREPARED] = "rollback prepared",
        [STMT_SET] = "set",
        [STMT_SET_TRANSACTION] = "set transaction",
        [STMT_RESET] = "reset",
        [STMT_RESET_ALL] = "reset all",
        [STMT_SHOW] = "show",
        [STMT_EXPLAIN] = "explain",
        [STMT_PREPARE] = "prepare",
        [STMT_EXECUTE] = "execute",
        [STMT_DEALLOCATE] = "deallocate",
        [STMT_DISCARD] = "discard",
        [STMT_LISTEN] = "listen",
        [STMT_UNLISTEN] = "unlisten",
        [STMT_NOTIFY] = "notify",
        [STMT_DECLARE_CURSOR] = "declare cursor",
        [STMT_FETCH] = "fetch",
        [STMT_CLOSE_CURSOR] = "close cursor",
        [STMT_COPY_FROM] = "copy from",
        [STMT_COPY_TO] = "copy to",
        [STMT_LOCK] = "lock",
        [STMT_TRUNCATE] = "truncate",
        [STMT_CREATE_TABLE] = "create table",
        [STMT_CREATE_TABLE_AS] = "create table as",
        [STMT_DDL] = "ddl",
        [STMT_DDL_NO_TX] = "ddl outside a transaction",
        [STMT_CALL] = "call",
        [STMT_DO] = "do",
        [STMT_LOAD] = "load",
        [STMT_CHECKPOINT] = "checkpoint",
        [STMT_OTHER] = "other",
    };
    if ((size_t)kind >= sizeof names / sizeof names[0] || !names[kind])
        return "unknown";
    return names[kind];
}

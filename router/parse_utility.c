/*
 * parse_utility.c: statements around queries and tables that are no schema change: EXPLAIN, PREPARE,
 * cursors, COPY, LOCK, TRUNCATE, CALL and the like.
 */
#include "router/parse_internal.h"

#include <limits.h>
#include <string.h>
#include <strings.h>

bool parse_option_on(const DefElem *option)
{
    if (!option->arg)
        return true;
    if (IsA(option->arg, Integer))
        return intVal(option->arg) != 0;
    if (!IsA(option->arg, String))
        return true;
    const char *text = strVal(option->arg);
    return strcasecmp(text, "false") != 0 && strcasecmp(text, "off") != 0;
}

static const char *explain_format(const DefElem *option)
{
    static const char *const formats[] = {"json", "xml", "yaml"};
    const char *said = option->arg && IsA(option->arg, String) ? strVal(option->arg) : "";
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(said, formats[i]) == 0)
            return formats[i];
    return NULL;
}

static void parse_explain(struct convert *c, const ExplainStmt *explain)
{
    c->statement->kind = STMT_EXPLAIN;
    c->statement->tag = "EXPLAIN";
    for (int i = 0; i < list_length(explain->options); i++) {
        const DefElem *option = list_nth(explain->options, i);
        if (!strcmp(option->defname, "analyze"))
            c->statement->explain_analyze = parse_option_on(option);
        if (!strcmp(option->defname, "format"))
            c->statement->explain_format = explain_format(option);
    }
    parse_inner(c, explain->query);
}

static void parse_prepare(struct convert *c, const PrepareStmt *prepare)
{
    c->statement->kind = STMT_PREPARE;
    c->statement->tag = "PREPARE";
    c->statement->name = parse_copy(c, prepare->name);
    parse_inner(c, prepare->query);
}

static void parse_execute(struct convert *c, const ExecuteStmt *execute)
{
    c->statement->kind = STMT_EXECUTE;
    c->statement->tag = "EXECUTE";
    c->statement->name = parse_copy(c, execute->name);
    parse_discard(c, (Node *)execute->params);
}

static void parse_declare(struct convert *c, const DeclareCursorStmt *declare)
{
    c->statement->kind = STMT_DECLARE_CURSOR;
    c->statement->tag = "DECLARE CURSOR";
    c->statement->name = parse_copy(c, declare->portalname);
    c->statement->cursor_hold = (declare->options & CURSOR_OPT_HOLD) != 0;
    c->statement->cursor_binary = (declare->options & CURSOR_OPT_BINARY) != 0;
    c->statement->cursor_scroll = (declare->options & CURSOR_OPT_SCROLL) != 0;
    parse_inner(c, declare->query);
}

/* The value of an option as text; NULL: it has none that is plain. */
static const char *option_text(struct convert *c, const DefElem *option)
{
    if (option->arg && IsA(option->arg, String))
        return parse_copy(c, strVal(option->arg));
    if (option->arg && IsA(option->arg, Integer))
        return arena_printf(c->arena, "%d", intVal(option->arg));
    return NULL;
}

static const char **option_names(struct convert *c, const DefElem *option, int *count)
{
    const char **names;
    bool all = option->arg && IsA(option->arg, A_Star);
    const List *list = option->arg && IsA(option->arg, List) ? (const List *)option->arg : NULL;
    *count = all ? 1 : list_length(list);
    names = arena_array(c->arena, const char *, *count + 1);
    for (int i = 0; i < *count; i++)
        names[i] = all ? "*" : parse_copy(c, strVal(list_nth(list, i)));
    return names;
}

static bool parse_copy_header(const DefElem *option, struct copy_options *options)
{
    static const char *const words[] = {"true", "on", "match", "1", "false", "off", "0"};
    if (!option->arg || IsA(option->arg, Boolean)) {
        options->header = !option->arg || boolVal(option->arg);
        return true;
    }
    if (IsA(option->arg, Integer)) {
        options->header = intVal(option->arg) != 0;
        return intVal(option->arg) == 0 || intVal(option->arg) == 1;
    }
    for (int i = 0; IsA(option->arg, String) && i < 7; i++)
        if (strcasecmp(strVal(option->arg), words[i]) == 0) {
            options->header = i < 4;
            options->odd |= i == 2;
            return true;
        }
    return false;
}

/* False: not understood. */
static bool parse_copy_option(struct convert *c, const DefElem *option,
                              struct copy_options *options)
{
    static const char *const harmless[] = {"freeze", "on_error", "log_verbosity", "reject_limit"};
    const struct {
        const char *name, **value;
    } texts[] = {{"format", &options->format},   {"delimiter", &options->delimiter},
                 {"null", &options->null},       {"quote", &options->quote},
                 {"escape", &options->escape},   {"encoding", &options->encoding},
                 {"default", &options->default_}};
    const char *name = option->defname;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(name, texts[i].name) == 0)
            return (*texts[i].value = option_text(c, option)) != NULL;
    if (strcmp(name, "header") == 0)
        return parse_copy_header(option, options);
    options->force_quote_all |=
        strcmp(name, "force_quote") == 0 && option->arg && IsA(option->arg, A_Star);
    options->odd |= strcmp(name, "force_quote") != 0 || !options->force_quote_all;
    if (strcmp(name, "force_null") == 0)
        options->force_null = option_names(c, option, &options->nforce_null);
    else if (strcmp(name, "force_not_null") == 0)
        options->force_not_null = option_names(c, option, &options->nforce_not_null);
    else
        for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
            if (strcmp(name, harmless[i]) == 0)
                return true;
    return strncmp(name, "force_", 6) == 0;
}

static const struct copy_options *parse_copy_options(struct convert *c, const List *list)
{
    struct copy_options *options = arena_new(c->arena, struct copy_options);
    for (int i = 0; i < list_length(list); i++) {
        const DefElem *option = list_nth(list, i);
        if (!parse_copy_option(c, option, options))
            options->unknown = parse_copy(c, option->defname);
        for (int j = 0; j < i; j++)
            options->odd |=
                strcmp(option->defname, ((const DefElem *)list_nth(list, j))->defname) == 0;
    }
    return options;
}

static void parse_copy_statement(struct convert *c, const CopyStmt *copy)
{
    struct statement *statement = c->statement;
    statement->kind = copy->is_from ? STMT_COPY_FROM : STMT_COPY_TO;
    statement->tag = "COPY";
    statement->copy_stdio = !copy->filename && !copy->is_program;
    if (copy->relation)
        parse_note_range(c, copy->relation, copy->is_from);
    statement->ncopy_columns = list_length(copy->attlist);
    if (statement->ncopy_columns)
        statement->copy_columns = arena_array(c->arena, const char *, statement->ncopy_columns);
    for (int i = 0; i < statement->ncopy_columns; i++)
        statement->copy_columns[i] = parse_copy(c, strVal(list_nth(copy->attlist, i)));
    statement->copy_options = parse_copy_options(c, copy->options);
    parse_discard(c, copy->whereClause);
    if (copy->query)
        parse_inner(c, copy->query);
}

static void note_ranges(struct convert *c, const List *ranges)
{
    for (int i = 0; i < list_length(ranges); i++)
        parse_note_range(c, list_nth(ranges, i), true);
}

static void parse_create_as(struct convert *c, const CreateTableAsStmt *create)
{
    struct statement *statement = c->statement;
    statement->kind = STMT_CREATE_TABLE_AS;
    statement->create_temp = parse_is_temporary(create->into->rel);
    statement->create_unlogged = create->into->rel->relpersistence == 'u';
    statement->create_no_data = create->into->skipData;
    parse_note_range(c, create->into->rel, true);
    parse_inner(c, create->query);
}

static void parse_call(struct convert *c, const CallStmt *call)
{
    c->statement->kind = STMT_CALL;
    c->statement->tag = "CALL";
    parse_discard(c, (Node *)call->funccall);
}

static void set_kind(struct convert *c, enum statement_kind kind, const char *tag, const char *name)
{
    c->statement->kind = kind;
    c->statement->tag = tag;
    c->statement->name = parse_copy(c, name);
}

static void parse_fetch(struct convert *c, const FetchStmt *fetch)
{
    set_kind(c, STMT_FETCH, fetch->ismove ? "MOVE" : "FETCH", fetch->portalname);
    bool forward = fetch->direction == FETCH_FORWARD && fetch->howMany > 0;
    c->statement->fetch_rows = !forward                      ? -1
                               : fetch->howMany == FETCH_ALL ? INT64_MAX
                                                             : fetch->howMany;
}

static const char *discard_target(const DiscardStmt *discard)
{
    switch ((int)discard->target) {
    case DISCARD_PLANS:
        return "PLANS";
    case DISCARD_SEQUENCES:
        return "SEQUENCES";
    case DISCARD_TEMP:
        return "TEMP";
    default:
        return "ALL";
    }
}

/* Statements that are a word and perhaps a name. */
static bool parse_named(struct convert *c, Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_DeallocateStmt:
        set_kind(c, STMT_DEALLOCATE, "DEALLOCATE", ((DeallocateStmt *)node)->name);
        return true;
    case T_DiscardStmt:
        set_kind(c, STMT_DISCARD, "DISCARD", discard_target((DiscardStmt *)node));
        return true;
    case T_FetchStmt:
        parse_fetch(c, (FetchStmt *)node);
        return true;
    case T_ClosePortalStmt:
        set_kind(c, STMT_CLOSE_CURSOR, "CLOSE CURSOR", ((ClosePortalStmt *)node)->portalname);
        return true;
    case T_ListenStmt:
        set_kind(c, STMT_LISTEN, "LISTEN", ((ListenStmt *)node)->conditionname);
        return true;
    case T_UnlistenStmt:
        set_kind(c, STMT_UNLISTEN, "UNLISTEN", ((UnlistenStmt *)node)->conditionname);
        return true;
    case T_NotifyStmt:
        set_kind(c, STMT_NOTIFY, "NOTIFY", ((NotifyStmt *)node)->conditionname);
        return true;
    case T_DoStmt:
        set_kind(c, STMT_DO, "DO", NULL);
        return true;
    case T_LoadStmt:
        set_kind(c, STMT_LOAD, "LOAD", ((LoadStmt *)node)->filename);
        return true;
    case T_CheckPointStmt:
        set_kind(c, STMT_CHECKPOINT, "CHECKPOINT", NULL);
        return true;
    default:
        return false;
    }
}

static bool parse_around_queries(struct convert *c, Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_ExplainStmt:
        parse_explain(c, (ExplainStmt *)node);
        return true;
    case T_PrepareStmt:
        parse_prepare(c, (PrepareStmt *)node);
        return true;
    case T_ExecuteStmt:
        parse_execute(c, (ExecuteStmt *)node);
        return true;
    case T_DeclareCursorStmt:
        parse_declare(c, (DeclareCursorStmt *)node);
        return true;
    case T_CopyStmt:
        parse_copy_statement(c, (CopyStmt *)node);
        return true;
    case T_CreateTableAsStmt:
        parse_create_as(c, (CreateTableAsStmt *)node);
        return true;
    case T_CallStmt:
        parse_call(c, (CallStmt *)node);
        return true;
    case T_LockStmt:
        set_kind(c, STMT_LOCK, "LOCK TABLE", NULL);
        note_ranges(c, ((LockStmt *)node)->relations);
        return true;
    case T_TruncateStmt:
        set_kind(c, STMT_TRUNCATE, "TRUNCATE TABLE", NULL);
        note_ranges(c, ((TruncateStmt *)node)->relations);
        return true;
    default:
        return false;
    }
}

void parse_utility(struct convert *c, Node *node)
{
    c->statement->kind = STMT_OTHER;
    if (parse_session(c, node) || parse_around_queries(c, node) || parse_named(c, node))
        return;
    parse_ddl(c, node);
}

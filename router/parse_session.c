/*
 * parse_session.c: what changes the session or the transaction: BEGIN and its kin, SET, RESET, SHOW.
 */
#include "router/parse_internal.h"

#include <string.h>
#include <strings.h>

#include "pgshunt/buffer.h"

#include "utils/datetime.h"

/* ---- transaction control ---- */

static void append_option(struct buffer *out, const char *text)
{
    if (buffer_length(out))
        buffer_append(out, " ", 1);
    buffer_append(out, text, strlen(text));
}

static bool constant_on(const Node *arg)
{
    return arg && IsA(arg, A_Const) && ((const A_Const *)arg)->val.ival.ival != 0;
}

static void append_isolation(struct buffer *out, const Node *arg)
{
    if (!arg || !IsA(arg, A_Const))
        return;
    append_option(out, "ISOLATION LEVEL ");
    for (const char *p = ((const A_Const *)arg)->val.sval.sval; *p; p++) {
        char upper = *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
        buffer_append(out, &upper, 1);
    }
}

/* The options as SQL again, in the order they came, and what they say about writing. */
static void parse_transaction_options(struct convert *c, const List *options)
{
    struct statement *statement = c->statement;
    struct buffer out = {0};
    for (int i = 0; i < list_length(options); i++) {
        const DefElem *option = list_nth(options, i);
        if (!strcmp(option->defname, "transaction_isolation")) {
            append_isolation(&out, option->arg);
        } else if (!strcmp(option->defname, "transaction_read_only")) {
            statement->tx_read_only = constant_on(option->arg);
            statement->tx_read_write = !statement->tx_read_only;
            append_option(&out, statement->tx_read_only ? "READ ONLY" : "READ WRITE");
        } else {
            append_option(&out, constant_on(option->arg) ? "DEFERRABLE" : "NOT DEFERRABLE");
        }
    }
    statement->begin_options = arena_strndup(c->arena, out.data ? buffer_head(&out) : "",
                                             out.data ? buffer_length(&out) : 0);
    buffer_release(&out);
}

static void parse_transaction(struct convert *c, const TransactionStmt *tx)
{
    static const struct {
        enum statement_kind kind;
        const char *tag;
    } kinds[] = {
        [TRANS_STMT_BEGIN] = {STMT_BEGIN, "BEGIN"},
        [TRANS_STMT_START] = {STMT_BEGIN, "START TRANSACTION"},
        [TRANS_STMT_COMMIT] = {STMT_COMMIT, "COMMIT"},
        [TRANS_STMT_ROLLBACK] = {STMT_ROLLBACK, "ROLLBACK"},
        [TRANS_STMT_SAVEPOINT] = {STMT_SAVEPOINT, "SAVEPOINT"},
        [TRANS_STMT_RELEASE] = {STMT_RELEASE, "RELEASE"},
        [TRANS_STMT_ROLLBACK_TO] = {STMT_ROLLBACK_TO, "ROLLBACK"},
        [TRANS_STMT_PREPARE] = {STMT_PREPARE_TRANSACTION, "PREPARE TRANSACTION"},
        [TRANS_STMT_COMMIT_PREPARED] = {STMT_COMMIT_PREPARED, "COMMIT PREPARED"},
        [TRANS_STMT_ROLLBACK_PREPARED] = {STMT_ROLLBACK_PREPARED, "ROLLBACK PREPARED"},
    };
    struct statement *statement = c->statement;
    if ((size_t)tx->kind >= sizeof kinds / sizeof kinds[0]) {
        c->failed = true;
        return;
    }
    statement->kind = kinds[tx->kind].kind;
    statement->tag = kinds[tx->kind].tag;
    statement->chain = tx->chain;
    statement->name = parse_copy(c, tx->gid ? tx->gid : tx->savepoint_name);
    if (statement->kind == STMT_BEGIN)
        parse_transaction_options(c, tx->options);
}

/* ---- settings ---- */

static const char *setting_name(struct convert *c, const char *name)
{
    char *copy = parse_copy(c, name ? name : "");
    for (char *p = copy; *p; p++) {
        if (*p >= 'A' && *p <= 'Z')
            *p += 'a' - 'A';
    }
    return copy;
}

/*
 * SET TIME ZONE INTERVAL '-8' HOUR: an interval is no value for SET name TO, but the setting takes a
 * string that says interval, in which a bare number is seconds.
 */
static const char *interval_value(struct convert *c, const TypeCast *cast)
{
    const char *text = ((const A_Const *)cast->arg)->val.sval.sval;
    const List *typmods = cast->typeName->typmods;
    bool hours = false;
    if (typmods && IsA(linitial(typmods), A_Const))
        hours = ((const A_Const *)linitial(typmods))->val.ival.ival == INTERVAL_MASK(HOUR);
    bool number = *text && !text[strspn(text, "+-0123456789.")];
    const char *unit = hours && number ? " hours" : "";
    return scan_quote(arena_printf(c->arena, "INTERVAL '%s%s'", text, unit), c->arena);
}

static const char *setting_item(struct convert *c, const Node *arg)
{
    if (IsA(arg, TypeCast) && IsA(((const TypeCast *)arg)->arg, A_Const))
        return interval_value(c, (const TypeCast *)arg);
    if (!IsA(arg, A_Const))
        return NULL;
    const A_Const *constant = (const A_Const *)arg;
    switch ((int)nodeTag(&constant->val.node)) {
    case T_Integer:
        return arena_printf(c->arena, "%d", constant->val.ival.ival);
    case T_Float:
        return constant->val.fval.fval;
    case T_Boolean:
        return constant->val.boolval.boolval ? "'true'" : "'false'";
    case T_String:
        return scan_quote(constant->val.sval.sval, c->arena);
    default:
        return NULL;
    }
}

/* All values as SQL, separated by ", ". */
static const char *setting_value(struct convert *c, const List *args)
{
    struct buffer out = {0};
    for (int i = 0; i < list_length(args); i++) {
        const char *item = setting_item(c, list_nth(args, i));
        if (!item) {
            c->failed = true;
            break;
        }
        if (i)
            buffer_append(&out, ", ", 2);
        buffer_append(&out, item, strlen(item));
    }
    const char *value = buffer_length(&out)
                            ? arena_strndup(c->arena, buffer_head(&out), buffer_length(&out))
                            : NULL;
    buffer_release(&out);
    return value;
}

/* SET TRANSACTION modes, SET SESSION CHARACTERISTICS, SET TRANSACTION SNAPSHOT. */
static void parse_set_transaction(struct convert *c, const VariableSetStmt *set)
{
    struct statement *statement = c->statement;
    statement->kind = STMT_SET_TRANSACTION;
    if (!strcmp(set->name, "TRANSACTION SNAPSHOT")) {
        statement->value = setting_value(c, set->args);
        statement->begin_options = "";
        return;
    }
    statement->session_characteristics = !strcmp(set->name, "SESSION CHARACTERISTICS");
    parse_transaction_options(c, set->args);
}

static void parse_set(struct convert *c, const VariableSetStmt *set)
{
    struct statement *statement = c->statement;
    statement->is_local = set->is_local;
    statement->tag = "SET";
    statement->name = setting_name(c, set->name);
    switch ((int)set->kind) {
    case VAR_SET_VALUE:
        statement->kind = STMT_SET;
        statement->value = setting_value(c, set->args);
        break;
    case VAR_SET_DEFAULT:
        statement->kind = STMT_SET;
        break;
    case VAR_SET_MULTI:
        parse_set_transaction(c, set);
        break;
    case VAR_RESET:
        statement->kind = STMT_RESET;
        statement->tag = "RESET";
        break;
    case VAR_RESET_ALL:
        statement->kind = STMT_RESET_ALL;
        statement->tag = "RESET";
        break;
    default: /* FROM CURRENT belongs to CREATE FUNCTION */
        statement->kind = STMT_OTHER;
        break;
    }
}

bool parse_session(struct convert *c, Node *node)
{
    switch ((int)nodeTag(node)) {
    case T_TransactionStmt:
        parse_transaction(c, (TransactionStmt *)node);
        return true;
    case T_VariableSetStmt:
        parse_set(c, (VariableSetStmt *)node);
        return true;
    case T_VariableShowStmt:
        c->statement->kind = STMT_SHOW;
        c->statement->tag = "SHOW";
        c->statement->name = setting_name(c, ((VariableShowStmt *)node)->name);
        return true;
    default:
        return false;
    }
}

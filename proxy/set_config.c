/* set_config.c: set_config() calls with literals and parameters, as changes of settings. */
#include "proxy/set_config.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pgshunt/arena.h"

static const struct expr *without_casts(const struct expr *expr)
{
    while (expr->kind == EXPR_CAST && expr->nargs == 1)
        expr = expr->args[0];
    return expr;
}

static bool is_text(uint32_t type_oid)
{
    switch (type_oid) {
    case 0:    /* left to the server: the function's argument is text */
    case 19:   /* name */
    case 25:   /* text */
    case 705:  /* unknown */
    case 1042: /* character */
    case 1043: /* character varying */
        return true;
    default:
        return false;
    }
}

/* A text to be freed, or NULL for NULL. False: not known. */
static bool text_of(const struct expr *expr, const struct params *params, char **text)
{
    expr = without_casts(expr);
    *text = NULL;
    if (expr->kind == EXPR_CONST) {
        if (expr->const_kind == CONST_BITS)
            return false;
        if (expr->const_kind != CONST_NULL)
            *text = mem_strdup(expr->name);
        return true;
    }
    if (expr->kind != EXPR_PARAM || !params || expr->number < 1 || expr->number > params->count)
        return false;
    const struct param *param = &params->items[expr->number - 1];
    if (!param->bytes)
        return true;
    if (param->binary && !is_text(param->type_oid))
        return false;
    *text = mem_alloc((size_t)param->length + 1);
    memcpy(*text, param->bytes, (size_t)param->length);
    return true;
}

static bool is_prefix(const char *text, const char *word, size_t at_least)
{
    size_t len = strlen(text);
    return len >= at_least && len <= strlen(word) && strncasecmp(text, word, len) == 0;
}

/* As Postgres' boolean input has it. -1: no boolean. */
static int boolean(const char *text)
{
    if (strcmp(text, "1") == 0 || is_prefix(text, "true", 1) || is_prefix(text, "yes", 1) ||
        is_prefix(text, "on", 2))
        return 1;
    if (strcmp(text, "0") == 0 || is_prefix(text, "false", 1) || is_prefix(text, "no", 1) ||
        is_prefix(text, "off", 2))
        return 0;
    return -1;
}

static int boolean_of(const struct expr *expr, const struct params *params)
{
    char *text;
    expr = without_casts(expr);
    if (expr->kind == EXPR_PARAM && params && expr->number >= 1 && expr->number <= params->count &&
        params->items[expr->number - 1].binary && params->items[expr->number - 1].length == 1)
        return params->items[expr->number - 1].bytes[0] != 0;
    if (!text_of(expr, params, &text))
        return -1;
    int value = text ? boolean(text) : -1;
    free(text);
    return value;
}

static bool take_call(const struct expr *call, const struct params *params,
                      struct guc_pending *changes)
{
    char *name = NULL, *text = NULL;
    int local = boolean_of(call->args[2], params);
    bool known = text_of(call->args[0], params, &name) && name &&
                 text_of(call->args[1], params, &text) && local >= 0;
    if (known) {
        for (char *p = name; *p; p++)
            *p = (char)tolower((unsigned char)*p);
        char *value = text ? guc_text_value(name, text) : NULL;
        guc_pending_add(changes, local, name, value);
        free(value);
    }
    free(name);
    free(text);
    return known || local == 1; /* nothing is left behind by what ends with the transaction */
}

static bool is_call(const struct expr *expr)
{
    return expr && expr->kind == EXPR_FUNC && strcmp(expr->name, "set_config") == 0 &&
           expr->nargs == 3;
}

bool set_config_changes(const struct statement *statement, const struct params *params,
                        struct guc_pending *changes)
{
    int calls = 0, known = 0;
    for (int i = 0; i < statement->nfunctions; i++)
        calls += strcmp(statement->functions[i].name, "set_config") == 0;
    if (!calls)
        return true;
    const struct query *query = statement->kind == STMT_QUERY ? statement->query : NULL;
    for (int i = 0; query && query->kind == QUERY_SELECT && i < query->ntargets; i++)
        if (is_call(query->targets[i].expr))
            known += take_call(query->targets[i].expr, params, changes);
    return known == calls;
}

/* plan_hints.c: what comments say about a statement: understood, or refused. */
#include "router/plan_internal.h"

#define ALLOWED                                                                                    \
    "A pgshunt comment has primary, replica, region=NAME, max_lag=200ms, shard=NAME, key=VALUE, "  \
    "or several of them."

static bool refuse(struct plan *plan, const char *sqlstate, const char *message, const char *hint)
{
    *plan = (struct plan){.kind = PLAN_REFUSE, .reason = message};
    plan->error = (struct pg_error){.sqlstate = sqlstate, .message = message, .hint = hint};
    return false;
}

/* A word that stands alone, or a name with its value: which is it to be? NULL: as it is. */
static const char *form_objection(const struct hint *hint)
{
    bool word = same_name(hint->name, "primary") || same_name(hint->name, "replica");
    if (word && hint->value)
        return "takes no value";
    return !word && (!hint->value || !*hint->value) ? "needs a value" : NULL;
}

static bool is_known(const char *name)
{
    static const char *const names[] = {"primary", "replica", "route", "region",
                                        "max_lag", "shard",   "key"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (same_name(name, names[i]))
            return true;
    return false;
}

/* False: `plan` refuses. */
static bool take_wish(const struct hint *hint, struct hints *hints, struct arena *arena,
                      struct plan *plan)
{
    const char *allowed, *name = hint->value ? hint->name : "route";
    const char *value = hint->value ? hint->value : hint->name;
    enum route before = hints->wish.route;
    if (!route_wish_take(&hints->wish, name, value, &allowed))
        return refuse(plan, "22023",
                      arena_printf(arena, "invalid value for %s in a pgshunt comment: \"%.60s\"",
                                   name, value),
                      arena_printf(arena, "Allowed is %s.", allowed));
    if (before != ROUTE_UNSAID && before != hints->wish.route)
        return refuse(plan, "22023", "pgshunt comments contradict each other on the route",
                      "Say one of primary and replica.");
    return true;
}

static bool take(const struct hint *hint, struct hints *hints, struct arena *arena,
                 struct plan *plan)
{
    if (!is_known(hint->name))
        return refuse(
            plan, "42704",
            arena_printf(arena, "unrecognized word in a pgshunt comment: \"%.60s\"", hint->name),
            ALLOWED);
    const char *objection = form_objection(hint);
    if (objection)
        return refuse(plan, "22023",
                      arena_printf(arena, "%s %s in a pgshunt comment", hint->name, objection),
                      ALLOWED);
    if (same_name(hint->name, "shard"))
        hints->shard = hint->value;
    else if (same_name(hint->name, "key"))
        hints->key = hint->value;
    else
        return take_wish(hint, hints, arena, plan);
    return true;
}

/* Ending a transaction must work, whatever else is said. */
static bool is_end(const struct statement *statement)
{
    return statement->kind == STMT_COMMIT || statement->kind == STMT_ROLLBACK ||
           statement->kind == STMT_ROLLBACK_TO;
}

/* "shard by user_id": three words. */
static bool take_shard_by(const struct statement *statement, int at, struct hints *hints)
{
    const struct hint *words = &statement->hints[at];
    bool creates = statement->kind == STMT_CREATE_TABLE || statement->kind == STMT_CREATE_TABLE_AS;
    if (!creates || at + 2 >= statement->nhints || words[0].value || words[1].value ||
        words[2].value || !same_name(words[0].name, "shard") || !same_name(words[1].name, "by"))
        return false;
    hints->shard_by = words[2].name;
    return true;
}

bool plan_take_hints(const struct statement *statement, struct hints *hints, struct arena *arena,
                     struct plan *plan)
{
    *hints = (struct hints){.wish = ROUTE_WISH_NONE};
    if (is_end(statement))
        return true;
    for (int i = 0; i < statement->nhints; i++)
        if (take_shard_by(statement, i, hints))
            i += 2;
        else if (!take(&statement->hints[i], hints, arena, plan))
            return false;
    return true;
}

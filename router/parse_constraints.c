/* parse_constraints.c: keys and foreign keys of tables that are made or altered. */
#include "router/parse_internal.h"

static const char **take_names(struct convert *c, const List *names, int *count)
{
    const char **out = arena_array(c->arena, const char *, list_length(names));
    *count = list_length(names);
    for (int i = 0; i < *count; i++)
        out[i] = arena_strdup(c->arena, strVal(list_nth(names, i)));
    return out;
}

static struct table_constraint *add(struct convert *c, enum table_constraint_kind kind)
{
    struct statement *statement = c->statement;
    statement->constraints = parse_grow(c->arena, statement->constraints, statement->nconstraints,
                                        sizeof *statement->constraints);
    struct table_constraint *constraint = &statement->constraints[statement->nconstraints++];
    *constraint = (struct table_constraint){.kind = kind};
    return constraint;
}

static void take_columns(struct convert *c, struct table_constraint *to, const List *names,
                         const char *column)
{
    to->columns = take_names(c, names, &to->ncolumns);
    if (to->ncolumns || !column)
        return;
    to->columns = arena_array(c->arena, const char *, 1);
    to->columns[0] = arena_strdup(c->arena, column);
    to->ncolumns = 1;
}

void parse_constraint(struct convert *c, const Constraint *constraint, const char *column)
{
    struct table_constraint *to;
    switch ((int)constraint->contype) {
    case CONSTR_FOREIGN:
        if (!constraint->pktable)
            return;
        parse_note_range(c, constraint->pktable, false);
        to = add(c, CONSTRAINT_FOREIGN_KEY);
        to->name = arena_strdup(c->arena, constraint->pktable->relname);
        if (constraint->pktable->schemaname)
            to->schema = arena_strdup(c->arena, constraint->pktable->schemaname);
        take_columns(c, to, constraint->fk_attrs, column);
        to->others = take_names(c, constraint->pk_attrs, &to->nothers);
        break;
    case CONSTR_PRIMARY:
    case CONSTR_UNIQUE:
        to = add(c,
                 constraint->contype == CONSTR_UNIQUE ? CONSTRAINT_UNIQUE : CONSTRAINT_PRIMARY_KEY);
        take_columns(c, to, constraint->keys, column);
        break;
    default:
        break;
    }
}

void parse_constraints(struct convert *c, const List *constraints, const char *column)
{
    for (int i = 0; i < list_length(constraints); i++)
        if (IsA(list_nth(constraints, i), Constraint))
            parse_constraint(c, list_nth(constraints, i), column);
}

void parse_unique_index(struct convert *c, const IndexStmt *index)
{
    const char **columns = arena_array(c->arena, const char *, list_length(index->indexParams));
    int count = 0;
    for (int i = 0; i < list_length(index->indexParams); i++) {
        const IndexElem *element = list_nth(index->indexParams, i);
        if (element->name) /* else an expression */
            columns[count++] = arena_strdup(c->arena, element->name);
    }
    struct table_constraint *to = add(c, CONSTRAINT_UNIQUE);
    to->columns = columns;
    to->ncolumns = count;
}

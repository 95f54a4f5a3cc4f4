/* statement_dump.h: a parsed statement as text, (op args), select[...], for tests that compare trees. */
#ifndef PGSHUNT_STATEMENT_DUMP_H
#define PGSHUNT_STATEMENT_DUMP_H

#include <stdio.h>
#include <string.h>

#include "pgshunt/buffer.h"
#include "pgshunt/statement.h"

static void dump_query(struct buffer *out, const struct query *q);

static void dump_expr(struct buffer *out, const struct expr *e);

static void dump_args(struct buffer *out, const char *head, const struct expr *e)
{
    buffer_printf(out, "(%s", head);
    for (int i = 0; i < e->nargs; i++) {
        buffer_append(out, " ", 1);
        dump_expr(out, e->args[i]);
    }
    buffer_append(out, ")", 1);
}

static void dump_sort(struct buffer *out, const struct sort_item *items, int count)
{
    for (int i = 0; i < count; i++) {
        buffer_append(out, " ", 1);
        dump_expr(out, items[i].expr);
        buffer_printf(out, "%s%s%s", items[i].descending ? " desc" : "",
                      items[i].nulls_first ? " nf" : "", items[i].using_op ? " using" : "");
    }
}

static void dump_call(struct buffer *out, const struct expr *e)
{
    const struct call_detail *call = e->call;
    buffer_printf(out, "%s%s%s", e->qualifier ? e->qualifier : "", e->qualifier ? "." : "",
                  e->name);
    dump_args(out,
              call->star       ? "*"
              : call->distinct ? "distinct"
              : call->variadic ? "variadic"
                               : "",
              e);
    if (call->norder_by) {
        buffer_printf(out, "%s[", call->within_group ? "within" : "order");
        dump_sort(out, call->order_by, call->norder_by);
        buffer_printf(out, "]");
    }
    if (call->filter) {
        buffer_printf(out, "filter");
        dump_expr(out, call->filter);
    }
    if (call->over)
        buffer_printf(out, "over");
}

static void dump_const(struct buffer *out, const struct expr *e)
{
    static const char *prefix[] = {"", "", "float:", "", "", "bits:"};
    const char *quote = e->const_kind == CONST_STRING ? "'" : "";
    buffer_printf(out, "%s%s%s%s", prefix[e->const_kind], quote, e->name, quote);
    if (e->const_kind == CONST_INT) {
        char number[32];
        snprintf(number, sizeof number, "%lld", (long long)e->number);
        if (strcmp(number, e->name) != 0)
            buffer_printf(out, "=%s", number);
    }
}

static void dump_sublink(struct buffer *out, const struct expr *e)
{
    buffer_printf(out, "%s%s{", e->name, e->qualifier ? e->qualifier : "");
    if (e->nargs) {
        dump_expr(out, e->args[0]);
        buffer_printf(out, " ");
    }
    dump_query(out, e->query);
    buffer_printf(out, "}");
}

static void dump_named(struct buffer *out, const char *prefix, const struct expr *e)
{
    char head[200];
    snprintf(head, sizeof head, "%s%s%s%s%s", e->negated ? "not " : "", prefix,
             e->qualifier ? e->qualifier : "", e->qualifier ? "." : "", e->name ? e->name : "");
    dump_args(out, head, e);
}

static void dump_expr(struct buffer *out, const struct expr *e)
{
    if (!e) {
        buffer_printf(out, "null");
        return;
    }
    switch (e->kind) {
    case EXPR_COLUMN:
    case EXPR_STAR:
        buffer_printf(out, "%s%s%s%s%s", e->schema ? e->schema : "", e->schema ? "." : "",
                      e->qualifier ? e->qualifier : "", e->qualifier ? "." : "",
                      e->kind == EXPR_STAR ? "*" : e->name);
        break;
    case EXPR_PARAM:
        buffer_printf(out, "$%d", (int)e->number);
        break;
    case EXPR_CONST:
        dump_const(out, e);
        break;
    case EXPR_CAST:
        dump_named(out, "::", e);
        break;
    case EXPR_OP:
        dump_named(out, "", e);
        break;
    case EXPR_AND:
        dump_args(out, "and", e);
        break;
    case EXPR_OR:
        dump_args(out, "or", e);
        break;
    case EXPR_NOT:
        dump_args(out, "not", e);
        break;
    case EXPR_IN:
        dump_args(out, e->negated ? "not in" : "in", e);
        break;
    case EXPR_ANY:
        dump_named(out, "any ", e);
        break;
    case EXPR_BETWEEN:
        dump_args(out, "between", e);
        break;
    case EXPR_NULL_TEST:
        dump_args(out, e->negated ? "notnull" : "isnull", e);
        break;
    case EXPR_FUNC:
        dump_call(out, e);
        break;
    case EXPR_SUBLINK:
        dump_sublink(out, e);
        break;
    case EXPR_ROW:
        dump_args(out, "row", e);
        break;
    case EXPR_ARRAY:
        dump_args(out, "array", e);
        break;
    case EXPR_CASE:
        dump_args(out, "case", e);
        break;
    case EXPR_DEFAULT:
        buffer_printf(out, "DEFAULT");
        break;
    case EXPR_COLLATE:
        dump_named(out, "collate ", e);
        break;
    case EXPR_OTHER:
        dump_named(out, "#", e);
        break;
    }
}

static void dump_from(struct buffer *out, const struct from_item *f)
{
    static const char *joins[] = {"join", "left", "right", "full"};
    static const char *kinds[] = {"", "", "", "", "other "};
    if (f->kind == FROM_JOIN || (f->kind == FROM_OTHER && f->left && f->right)) {
        buffer_printf(out, "(%s%s%s ", kinds[f->kind], f->natural ? "natural " : "",
                      joins[f->join]);
        dump_from(out, f->left);
        buffer_printf(out, " ");
        dump_from(out, f->right);
        for (int i = 0; i < f->nusing; i++)
            buffer_printf(out, " using %s", f->using_columns[i]);
        if (f->on) {
            buffer_printf(out, " on ");
            dump_expr(out, f->on);
        }
        buffer_printf(out, ")");
    } else {
        buffer_printf(out, "%s%s%s%s%s", kinds[f->kind], f->lateral ? "lateral " : "",
                      f->schema ? f->schema : "", f->schema ? "." : "", f->name ? f->name : "");
        if (f->subquery) {
            buffer_printf(out, "{");
            dump_query(out, f->subquery);
            buffer_printf(out, "}");
        }
        if (f->left)
            dump_from(out, f->left);
        if (f->function)
            dump_expr(out, f->function);
    }
    if (f->alias)
        buffer_printf(out, " as %s", f->alias);
}

static void dump_targets(struct buffer *out, const char *label, const struct target *targets,
                         int count)
{
    if (!count)
        return;
    buffer_printf(out, "%s[", label);
    for (int i = 0; i < count; i++) {
        if (i)
            buffer_printf(out, ", ");
        if (targets[i].alias)
            buffer_printf(out, "%s:", targets[i].alias);
        dump_expr(out, targets[i].expr);
    }
    buffer_printf(out, "]");
}

static void dump_list(struct buffer *out, const char *label, struct expr **list, int count)
{
    if (!count)
        return;
    buffer_printf(out, " %s", label);
    for (int i = 0; i < count; i++) {
        buffer_printf(out, " ");
        dump_expr(out, list[i]);
    }
}

static void dump_one(struct buffer *out, const char *label, const struct expr *e)
{
    if (!e)
        return;
    buffer_printf(out, " %s ", label);
    dump_expr(out, e);
}

static void dump_values(struct buffer *out, const struct query *q)
{
    for (int i = 0; i < q->nrows; i++) {
        buffer_printf(out, "(");
        for (int k = 0; k < q->row_width; k++) {
            if (k)
                buffer_printf(out, " ");
            dump_expr(out, q->rows[i][k]);
        }
        buffer_printf(out, ")");
    }
}

static void dump_change(struct buffer *out, const struct query *q)
{
    if (q->relation) {
        buffer_printf(out, " ");
        dump_from(out, q->relation);
    }
    if (q->source) {
        buffer_printf(out, " {");
        dump_query(out, q->source);
        buffer_printf(out, "}");
    }
    if (q->on_conflict)
        buffer_printf(out, " conflict%s", q->on_conflict_update ? " update" : "");
    dump_targets(out, " set", q->conflict_set, q->nconflict_set);
    dump_targets(out, " returning", q->returning, q->nreturning);
}

static void dump_clauses(struct buffer *out, const struct query *q)
{
    for (int i = 0; i < q->nfrom; i++) {
        buffer_printf(out, i ? ", " : " from ");
        dump_from(out, q->from[i]);
    }
    dump_one(out, "where", q->where);
    dump_list(out, q->grouping_sets ? "group sets" : "group", q->group_by, q->ngroup_by);
    dump_one(out, "having", q->having);
    dump_list(out, "on", q->distinct_on, q->ndistinct_on);
    if (q->norder_by) {
        buffer_printf(out, " order");
        dump_sort(out, q->order_by, q->norder_by);
    }
    dump_one(out, "limit", q->limit);
    dump_one(out, "offset", q->offset);
    buffer_printf(out, "%s%s%s%s", q->with_ties ? " ties" : "", q->locking ? " locking" : "",
                  q->into ? " into" : "", q->windows ? " windows" : "");
}

static void dump_query(struct buffer *out, const struct query *q)
{
    static const char *kinds[] = {"select", "values", "", "insert", "update", "delete", "merge"};
    for (int i = 0; i < q->nctes; i++) {
        buffer_printf(out, "%s%s%s{", q->ctes[i].recursive ? "recursive " : "with ",
                      q->ctes[i].name, q->ctes[i].renamed ? "(renamed)" : "");
        dump_query(out, q->ctes[i].query);
        buffer_printf(out, "} ");
    }
    if (q->kind == QUERY_SETOP) {
        buffer_printf(out, "{");
        dump_query(out, q->left);
        buffer_printf(out, "} %s {", q->setop);
        dump_query(out, q->right);
        buffer_printf(out, "}");
    } else {
        buffer_printf(out, "%s%s", kinds[q->kind], q->distinct ? " distinct" : "");
    }
    dump_targets(out, "", q->targets, q->ntargets);
    dump_values(out, q);
    dump_change(out, q);
    dump_clauses(out, q);
}

#endif

/*
 * plan_split.c: lists of keys in a fan-out, `key IN (...)` and `key = ANY (array)`: to each shard its own.
 *
 * A row on a shard has a key of that shard, so elements of others find nothing there. Where only true
 * counts (WHERE and ON, below AND and OR alone), leaving them out changes no answer. Literals are left
 * out of the text; what came as a parameter is left out of its value, so that the text stays the same for
 * all shards and all executions: an array with less in it, a NULL in place of a single value. NULLs, and
 * what is no value of the key's type, stay everywhere.
 */
#include "pgshunt/wire.h"
#include "router/plan_internal.h"

#define MAX_LISTS 16

struct list {
    const struct expr *e;
    int number; /* among all lists of the query's conditions, as walk_query() meets them */
    const struct instance *instance;
    struct key_owners owners;
    /* In the text of the shards: */
    bool edits;
    struct rewrite_items items;
};

struct split {
    struct planner *p;
    struct scope scope;
    struct list lists[MAX_LISTS];
    int nlists;
    int met;
    /* A second walk, over the shards' text: the lists by their numbers. */
    const struct expr **again;
    int room;
};

typedef void visit_list(struct split *s, const struct expr *e);

/* ---- lists where only true counts ---- */

static bool is_list(const struct expr *e)
{
    if (e->kind == EXPR_IN)
        return !e->negated && e->nargs > 1;
    return e->kind == EXPR_ANY && e->nargs == 2 && same_name(e->name, "=") && !e->qualifier;
}

static void walk_condition(struct split *s, const struct expr *e, visit_list *visit)
{
    if (!e)
        return;
    if (is_list(e))
        visit(s, e);
    for (int i = 0; (e->kind == EXPR_AND || e->kind == EXPR_OR) && i < e->nargs; i++)
        walk_condition(s, e->args[i], visit);
}

static void walk_from(struct split *s, const struct from_item *item, visit_list *visit)
{
    if (item->kind != FROM_JOIN)
        return;
    walk_from(s, item->left, visit);
    walk_from(s, item->right, visit);
    walk_condition(s, item->on, visit);
}

/* In the order of the text. */
static void walk_query(struct split *s, const struct query *query, visit_list *visit)
{
    s->met = 0;
    for (int i = 0; i < query->nfrom; i++)
        walk_from(s, query->from[i], visit);
    walk_condition(s, query->where, visit);
}

/* The instance whose key a list is about, and whose each element is; -1: none. */
static int find_owners(const struct split *s, const struct expr *e, struct key_owners *owners)
{
    struct planner *p = s->p;
    int i = scope_resolve(p, &s->scope, e->args[0]);
    for (int k = s->scope.first; e->args[0]->kind == EXPR_ROW && k < s->scope.end; k++)
        if (composite_owners(p, &s->scope, k, e, owners))
            return p->instances[k].derived ? -1 : k;
    if (i < s->scope.first || i >= s->scope.end || p->instances[i].derived)
        return -1;
    return keyfind_owners(p, &p->instances[i], e, owners) ? i : -1;
}

static void collect(struct split *s, const struct expr *e)
{
    struct list list = {.e = e, .number = s->met++};
    if (s->nlists == MAX_LISTS)
        return;
    int i = find_owners(s, e, &list.owners);
    if (i < 0)
        return;
    list.instance = &s->p->instances[i];
    s->lists[s->nlists++] = list;
}

static void find_again(struct split *s, const struct expr *e)
{
    if (s->met < s->room)
        s->again[s->met] = e;
    s->met++;
}

/* ---- elements ---- */

static bool is_for(int owner, unsigned shard)
{
    return owner == KEYFIND_EVERY || owner == (int)shard;
}

/* The elements of `e` one by one, and not an array as a whole: how many come before them. */
static bool has_elements(const struct expr *e, struct expr ***elements, int *count)
{
    const struct expr *array = e->args[1];
    if (e->kind == EXPR_IN) {
        *elements = e->args + 1;
        *count = e->nargs - 1;
        return true;
    }
    while (array->kind == EXPR_CAST)
        array = array->args[0];
    *elements = array->args;
    *count = array->nargs;
    return array->kind == EXPR_ARRAY;
}

static const struct expr *inside_casts(const struct expr *e)
{
    while (e->kind == EXPR_CAST)
        e = e->args[0];
    return e;
}

/* The array with this shard's elements only, in the form it has; NULL: as it is. */
static const char *filter_array(struct arena *arena, const struct key_owners *owners,
                                unsigned shard, const char *bytes, size_t *length, bool binary)
{
    struct array_reader reader;
    struct buffer out = {0};
    const char *element;
    size_t element_length;
    int at = 0, kept = 0;
    if (!array_open(&reader, bytes, *length, binary, arena))
        return NULL;
    if (binary)
        buffer_append(&out, bytes, *length < 20 ? *length : 20);
    for (; at < owners->count && array_next(&reader, &element, &element_length); at++) {
        if (!is_for(owners->shards[at], shard))
            continue;
        if (!binary)
            buffer_append(&out, kept ? "," : "{", 1);
        buffer_append(&out, reader.item, reader.item_length);
        kept++;
    }
    char *result = NULL;
    if (at == owners->count && at > kept && !reader.bad) {
        if (!binary)
            buffer_append(&out, kept ? "}" : "{}", kept ? 1 : 2);
        *length = buffer_length(&out);
        result = arena_strndup(arena, buffer_head(&out), *length);
        if (binary)
            wire_set32(result + 12, kept);
    }
    buffer_release(&out);
    return result;
}

/* ---- parameters ---- */

/* Whether the parameter is nowhere but in lists of keys: each use of it was met. */
static bool only_in_lists(const struct split *s, int number, const int *uses)
{
    const struct keyspace *keyspace = NULL;
    int met = 0;
    for (int i = 0; i < s->nlists; i++) {
        struct expr **elements;
        int count;
        bool several = has_elements(s->lists[i].e, &elements, &count);
        for (int k = 0; k < (several ? count : 1); k++) {
            const struct expr *e = inside_casts(several ? elements[k] : s->lists[i].e->args[1]);
            if (e->kind != EXPR_PARAM || e->number != number)
                continue;
            if (keyspace && keyspace != s->lists[i].instance->rule->keyspace)
                return false;
            keyspace = s->lists[i].instance->rule->keyspace;
            met++;
        }
    }
    return met == uses[number - 1];
}

struct values {
    const struct params *params;
    const int *uses;
    struct param *own; /* NULL: nothing has been changed */
};

static struct param *change_value(struct split *s, struct values *v, int number)
{
    if (!v->own) {
        v->own = arena_array(s->p->arena, struct param, v->params->count);
        memcpy(v->own, v->params->items, sizeof *v->own * (size_t)v->params->count);
    }
    return &v->own[number - 1];
}

static void split_value(struct split *s, const struct list *list, const struct expr *e, int at,
                        unsigned shard, struct values *v)
{
    const struct key_owners *owners = &list->owners;
    int number = (int)e->number;
    if (e->kind != EXPR_PARAM || number < 1 || number > v->params->count)
        return;
    const struct param *param = &v->params->items[number - 1];
    if (!param->bytes || !only_in_lists(s, number, v->uses))
        return;
    if (at >= 0 && !is_for(owners->shards[at], shard)) {
        change_value(s, v, number)->bytes = NULL;
    } else if (at < 0) {
        size_t length = (size_t)param->length;
        const char *less =
            filter_array(s->p->arena, owners, shard, param->bytes, &length, param->binary);
        if (!less)
            return;
        struct param *own = change_value(s, v, number);
        own->bytes = less;
        own->length = (int)length;
    }
}

static void split_values(struct split *s, struct shard_query *query, const int *uses)
{
    struct values v = {s->p->input->params, uses, NULL};
    for (int i = 0; i < s->nlists; i++) {
        const struct list *list = &s->lists[i];
        struct expr **elements;
        int count;
        if (!has_elements(list->e, &elements, &count))
            split_value(s, list, inside_casts(list->e->args[1]), -1, query->shard, &v);
        else
            for (int k = 0; k < count && k < list->owners.count; k++)
                split_value(s, list, inside_casts(elements[k]), k, query->shard, &v);
    }
    query->values = v.own;
}

/* ---- text ---- */

static bool is_constant_row(const struct expr *e)
{
    for (int i = 0; i < e->nargs; i++)
        if (inside_casts(e->args[i])->kind != EXPR_CONST)
            return false;
    return e->kind == EXPR_ROW;
}

/*
 * Whether elements may be left out of the text: what is left must have the type that all had. Parameters
 * in a list take their type from the others in it; so does an array without a cast around it.
 */
static bool may_edit(const struct list *list)
{
    struct expr **elements;
    int count;
    if (!has_elements(list->e, &elements, &count))
        return inside_casts(list->e->args[1])->kind == EXPR_CONST;
    bool typed = list->e->kind == EXPR_IN || list->e->args[1]->kind == EXPR_CAST;
    for (int i = 0; i < count; i++) {
        const struct expr *e = inside_casts(elements[i]);
        if (e->kind != EXPR_CONST && !is_constant_row(e))
            return false;
        if (!typed && (elements[i] != e || e->const_kind != elements[0]->const_kind))
            return false;
    }
    return count == list->owners.count;
}

/* Finds the lists in the text that the shards get. */
static bool find_items(struct split *s, const char *sql)
{
    bool any = false;
    for (int i = 0; i < s->nlists; i++)
        any |= s->lists[i].edits = may_edit(&s->lists[i]);
    if (!any)
        return false;
    struct statement_list parsed = statement_parse(sql, s->p->arena);
    if (parsed.count != 1 || !parsed.items[0]->query)
        return false;
    int met = s->met;
    s->room = met;
    s->again = arena_array(s->p->arena, const struct expr *, met);
    walk_query(s, parsed.items[0]->query, find_again);
    if (s->met != met)
        return false;
    for (int i = 0; i < s->nlists; i++) {
        struct list *list = &s->lists[i];
        const struct expr *e = s->again[list->number];
        list->edits = list->edits && e->kind == list->e->kind &&
                      rewrite_list_items(sql, e, s->p->arena, &list->items) &&
                      (list->items.string || list->items.count == list->owners.count);
    }
    return true;
}

/* An array literal, with this shard's elements only. */
static const char *edit_literal(const struct split *s, const struct list *list, unsigned shard)
{
    const char *text = inside_casts(list->e->args[1])->name;
    size_t length = strlen(text);
    const char *less = filter_array(s->p->arena, &list->owners, shard, text, &length, false);
    return less ? rewrite_literal(less, s->p->arena) : NULL;
}

struct edit {
    const char *sql;
    size_t copied;
    struct buffer out;
};

static void copy_to(struct edit *edit, size_t end)
{
    buffer_append(&edit->out, edit->sql + edit->copied, end - edit->copied);
    edit->copied = end;
}

/* Keeps this shard's items; at least one, as a list cannot be empty. */
static void edit_items(struct edit *edit, const struct list *list, unsigned shard)
{
    const struct rewrite_items *items = &list->items;
    int kept = 0;
    for (int i = 0; i < items->count; i++)
        kept += is_for(list->owners.shards[i], shard);
    if (kept == items->count)
        return;
    copy_to(edit, items->starts[0]);
    const char *between = "";
    for (int i = 0; i < items->count; i++) {
        if (kept ? !is_for(list->owners.shards[i], shard) : i > 0)
            continue;
        buffer_printf(&edit->out, "%s", between);
        buffer_append(&edit->out, edit->sql + items->starts[i], items->ends[i] - items->starts[i]);
        between = ", ";
    }
    edit->copied = items->ends[items->count - 1];
}

static void split_text(struct split *s, struct shard_query *query)
{
    struct edit edit = {.sql = query->sql};
    for (int i = 0; i < s->nlists; i++) {
        const struct list *list = &s->lists[i];
        if (!list->edits || list->items.starts[0] < edit.copied)
            continue;
        if (!list->items.string) {
            edit_items(&edit, list, query->shard);
            continue;
        }
        const char *literal = edit_literal(s, list, query->shard);
        if (!literal)
            continue;
        copy_to(&edit, list->items.starts[0]);
        buffer_printf(&edit.out, "%s", literal);
        edit.copied = list->items.ends[0];
    }
    if (edit.copied) {
        copy_to(&edit, strlen(edit.sql));
        query->sql = arena_strndup(s->p->arena, buffer_head(&edit.out), buffer_length(&edit.out));
    }
    buffer_release(&edit.out);
}

/* ---- the plan ---- */

void plan_split_lists(struct planner *p, const struct query *query)
{
    struct split s = {.p = p};
    struct plan *plan = p->plan;
    s.scope.query = query;
    for (int i = 0; i < p->nlevels; i++)
        if (p->levels[i].place == LEVEL_TOP) {
            s.scope.level = i;
            s.scope.first = p->levels[i].first;
            s.scope.end = p->levels[i].end;
        }
    walk_query(&s, query, collect);
    if (!s.nlists || !plan->nqueries)
        return;
    const struct params *params = p->input->params;
    if (params && params->count) {
        int *uses = arena_array(p->arena, int, params->count);
        memset(uses, 0, sizeof *uses * (size_t)params->count);
        rewrite_count_params(p->statement->text, uses, params->count);
        for (int i = 0; i < plan->nqueries; i++)
            split_values(&s, &plan->queries[i], uses);
    }
    if (!find_items(&s, plan->queries[0].sql))
        return;
    for (int i = 0; i < plan->nqueries; i++)
        split_text(&s, &plan->queries[i]);
}

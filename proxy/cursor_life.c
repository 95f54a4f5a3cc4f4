/* cursor_life.c: cursors of a transaction: how they come to be, which are gone, and what is closed and freed then. */
#include "proxy/cursor_internal.h"

#include <stdlib.h>
#include <string.h>

#include "pgshunt/wire.h"
#include "proxy/extended.h"

static void *copy_array(struct arena *arena, const void *items, size_t size, int count)
{
    if (!items || count <= 0)
        return NULL;
    void *copy = arena_alloc(arena, size * (size_t)count);
    memcpy(copy, items, size * (size_t)count);
    return copy;
}

/* It has to outlive the plan, which goes with its request. */
static void copy_spec(struct arena *arena, const struct merge_spec *from, struct merge_spec *to)
{
    *to = *from;
    to->sort = copy_array(arena, from->sort, sizeof *from->sort, from->nsort);
    to->sort_names = copy_array(arena, from->sort_names, sizeof *from->sort_names, from->nsort);
    for (int i = 0; to->sort_names && i < from->nsort; i++)
        if (from->sort_names[i])
            to->sort_names[i] = arena_strdup(arena, from->sort_names[i]);
    to->columns = copy_array(arena, from->columns, sizeof *from->columns, from->ncolumns);
    to->group_keys =
        copy_array(arena, from->group_keys, sizeof *from->group_keys, from->ngroup_keys);
    to->row_source = copy_array(arena, from->row_source, sizeof *from->row_source, from->nrows);
    if (from->collate)
        to->collate = arena_strdup(arena, from->collate);
}

struct cursor *cursor_new(struct client *client, const char *name, bool sql)
{
    const struct plan *plan = &client->request.plan;
    static const struct merge_spec as_it_comes = {.visible = -1, .limit = -1};
    struct transaction *tx = client->tx;
    int nparts = plan->gather ? 1 : plan->nqueries;
    struct cursor *c = mem_alloc(sizeof *c + sizeof(struct cursor_part) * (size_t)nparts);
    if (!tx->cursors)
        tx->cursors = mem_alloc(sizeof *tx->cursors);
    arena_init(&c->arena);
    c->client = client;
    c->id = ++tx->cursors->made;
    c->name = arena_strdup(&c->arena, name);
    c->server_name = arena_printf(&c->arena, "pgshunt_p%u", c->id);
    c->sql = sql;
    c->depth = tx->nsavepoints;
    c->write = plan->write;
    copy_spec(&c->arena, plan->gather ? &as_it_comes : plan->merge, &c->spec);
    c->merge = merge_new(&c->spec, nparts, client->topology->config->max_groups);
    merge_want_description(c->merge, true);
    c->nparts = nparts;
    for (int i = 0; i < c->nparts; i++) {
        unsigned shard = plan->gather ? plan->shard : plan->queries[i].shard;
        c->parts[i].shard = shard;
        c->parts[i].shard_name = arena_strdup(&c->arena, client->database->shards[shard].name);
    }
    c->next = tx->cursors->first;
    tx->cursors->first = c;
    return c;
}

void cursor_drop_rows(struct cursor *c)
{
    merge_free(c->merge);
    c->merge = NULL;
    c->dead = true;
}

static void free_cursor(struct cursor *c)
{
    merge_free(c->merge);
    buffer_release(&c->description);
    buffer_release(&c->run.out);
    free(c->verb);
    arena_free(&c->arena);
    free(c);
}

void cursors_free(struct cursors *cursors)
{
    if (!cursors)
        return;
    while (cursors->first) {
        struct cursor *c = cursors->first;
        cursors->first = c->next;
        free_cursor(c);
    }
    free(cursors);
}

void cursors_rollback_to(struct cursors *cursors, int savepoint)
{
    for (struct cursor *c = cursors ? cursors->first : NULL; c; c = c->next) {
        if (c->depth <= savepoint)
            continue;
        cursor_drop_rows(c); /* the servers have dropped their portals */
        for (int i = 0; i < c->nparts; i++)
            c->parts[i].open = false;
    }
}

void cursors_release(struct cursors *cursors, int savepoint)
{
    for (struct cursor *c = cursors ? cursors->first : NULL; c; c = c->next)
        if (c->depth > savepoint)
            c->depth = savepoint;
}

/* The client has closed its portal, or bound the name anew. */
static bool is_orphan(const struct cursor *c)
{
    if (c->sql || !c->client->extended)
        return false;
    const struct portal *portal = names_portal(&c->client->extended->names, c->name);
    return !portal || portal->cursor != c->id;
}

static bool has_open_part(const struct cursor *c)
{
    for (int i = 0; i < c->nparts; i++)
        if (c->parts[i].open)
            return true;
    return false;
}

/* Portals of cursors that are gone are closed on the way. */
void cursors_close_dead(struct cursors *cursors, unsigned shard, struct buffer *out)
{
    for (struct cursor *c = cursors->first; c; c = c->next) {
        if (!c->dead && is_orphan(c))
            cursor_drop_rows(c);
        for (int i = 0; c->dead && i < c->nparts; i++) {
            struct cursor_part *part = &c->parts[i];
            if (part->shard == shard && part->open)
                wire_put_close(out, 'P', c->server_name);
            part->open &= part->shard != shard;
        }
    }
}

/* A portal's is kept while its name stands: it tells that the rows cannot be had again. */
void cursors_forget_dead(struct cursors *cursors)
{
    struct cursor **at = &cursors->first;
    while (*at) {
        struct cursor *c = *at;
        if (c->dead && !has_open_part(c) && (c->sql || is_orphan(c))) {
            *at = c->next;
            free_cursor(c);
        } else {
            at = &c->next;
        }
    }
}

void cursors_close_all(struct client *client)
{
    struct cursor *c = client->tx && client->tx->cursors ? client->tx->cursors->first : NULL;
    for (; c; c = c->next)
        if (c->sql && !c->dead)
            cursor_drop_rows(c);
}

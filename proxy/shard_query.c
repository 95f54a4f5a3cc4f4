/* shard_query.c: one shard's part of a plan as messages: a Query, or Parse and Bind with its parameters. */
#include "proxy/shard_query.h"

#include <stdlib.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"

static int param_number(const struct shard_query *query, int at)
{
    return query->params ? query->params[at] : at;
}

static int param_count(const struct scatter_ask *ask, const struct shard_query *query)
{
    return query->params ? query->nparams : ask->params ? ask->params->count : 0;
}

uint32_t *shard_query_types(const struct scatter_ask *ask, const struct shard_query *query,
                            int *count)
{
    *count = param_count(ask, query);
    uint32_t *types = mem_alloc(sizeof *types * ((size_t)*count + 1));
    for (int i = 0; i < *count; i++) {
        int number = param_number(query, i);
        types[i] =
            ask->prepared && number < ask->prepared->ntypes ? ask->prepared->types[number] : 0;
    }
    return types;
}

static void put_parse(const struct scatter_ask *ask, const struct shard_query *query,
                      const char *name, struct buffer *out)
{
    int count;
    uint32_t *types = shard_query_types(ask, query, &count);
    wire_put_parse(out, name, query->sql, types, count);
    free(types);
}

static void put_formats(const struct scatter_ask *ask, enum shard_formats formats, int hidden,
                        struct buffer *out)
{
    if (formats == SHARD_AS_ASKED && ask->result_formats_len >= 2) {
        int count = wire_get16(ask->result_formats);
        int more = count > 1 ? hidden : 0;
        wire_put16(out, count + more);
        wire_put_bytes(out, ask->result_formats + 2, ask->result_formats_len - 2);
        for (int i = 0; i < more; i++)
            wire_put16(out, 0);
        return;
    }
    wire_put16(out, formats == SHARD_BINARY);
    if (formats == SHARD_BINARY)
        wire_put16(out, 1);
}

static const struct param *param_value(const struct scatter_ask *ask,
                                       const struct shard_query *query, int at)
{
    return &(query->values ? query->values : ask->params->items)[param_number(query, at)];
}

static void put_bind(const struct scatter_ask *ask, const struct shard_query *query,
                     enum shard_formats formats, int hidden, const char *portal, const char *name,
                     struct buffer *out)
{
    int count = param_count(ask, query);
    size_t begin = wire_begin(out, 'B');
    wire_put_cstring(out, portal);
    wire_put_cstring(out, name);
    wire_put16(out, count);
    for (int i = 0; i < count; i++)
        wire_put16(out, param_value(ask, query, i)->binary);
    wire_put16(out, count);
    for (int i = 0; i < count; i++) {
        const struct param *param = param_value(ask, query, i);
        wire_put32(out, param->bytes ? param->length : -1);
        if (param->bytes)
            wire_put_bytes(out, param->bytes, (size_t)param->length);
    }
    put_formats(ask, formats, hidden, out);
    wire_end(out, begin);
}

void shard_query_put(const struct scatter_ask *ask, const struct shard_query *query,
                     const struct shard_form *form, struct buffer *out)
{
    const char *name = form->name ? form->name : "";
    if (!ask->prepared && form->formats != SHARD_BINARY && !query->values) {
        wire_put_query(out, query->sql);
        return;
    }
    if (!form->there)
        put_parse(ask, query, name, out);
    put_bind(ask, query, form->formats, form->hidden, "", name, out);
    if (form->describe)
        wire_put_describe(out, 'P', "");
    size_t begin = wire_begin(out, 'E');
    wire_put_cstring(out, "");
    wire_put32(out, 0);
    wire_end(out, begin);
    wire_put_simple(out, 'S');
}

void shard_query_put_portal(const struct scatter_ask *ask, const struct shard_query *query,
                            enum shard_formats formats, int hidden, const char *portal,
                            struct buffer *out)
{
    put_parse(ask, query, "", out);
    put_bind(ask, query, formats, hidden, portal, "", out);
    wire_put_describe(out, 'P', portal);
}

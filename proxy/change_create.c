/* change_create.c: CREATE TABLE AS of rows that were gathered: filled on one shard, without rows on the others. */
#include <stdlib.h>

#include "proxy/change_internal.h"

static void create_on(struct change *change, int index, const struct shard_query *query,
                      struct buffer *out, int syncs)
{
    struct scatter *scatter = change->scatter;
    shard_query_put(&change->ask, query, &(struct shard_form){.formats = SHARD_AS_ASKED}, out);
    if (scatter->parts[index].server)
        scatter->parts[index].server->wrote = true;
    change_send(change, index, out, syncs + 1);
}

void change_create(struct change *change)
{
    const struct change_create *create = change->plan->create;
    int home = (int)change->scatter->plan->shard;
    change->phase = CHANGE_CREATING;
    for (int i = 0; i < change->nparts; i++) {
        struct buffer out = {0};
        if (i != home && !create->without.sql)
            continue;
        int syncs = i == home ? change_put_finishing(change, &out) : 0;
        create_on(change, i, i == home ? &create->filled : &create->without, &out, syncs);
    }
}

/* The last one of the shard that has the rows is the statement's own. */
void change_created(struct change *change, int index, const char *tag)
{
    struct part *first = &change->scatter->parts[0];
    if (index != (int)change->scatter->plan->shard)
        return;
    free(first->tag);
    first->tag = mem_strdup(tag);
}

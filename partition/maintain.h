/* maintain.h: tables brought to what their policies want, on all shards at once. */
#ifndef PGSHUNT_PARTITION_MAINTAIN_H
#define PGSHUNT_PARTITION_MAINTAIN_H

#include "partition/aim.h"
#include "partition/look.h"

/* What one shard has of one table. */
struct state {
    bool good; /* it can be maintained there */
    int nhave; /* without the default partition */
    int64_t first_from, first_to, last_to;
    bool pending, has_default;
    bool marked; /* a killed run has left its guard on the default partition */
    bool has_point;
    int64_t point; /* of ids: the greatest there is */
};

struct maintain {
    struct work *work;
    const struct policy *policies;
    int npolicies;
    struct state *states; /* [policy * shards + shard] */
    struct aim *aims;     /* by policy; cells NULL: could not be told */
    bool looking;         /* creates and expires nothing: what is wrong with a table is not told */
    bool whole;           /* from the first there is to be, whatever is there behind it */
    bool has_line;        /* expire what is below this point, and make nothing */
    int64_t line;
};

/* Looks at all shards, and finds out what is to be there. States and aims are in work's arena. */
void maintain_look(struct maintain *maintain);
/* Makes and expires. */
void maintain_do(struct maintain *maintain);

#endif

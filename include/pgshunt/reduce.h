/*
 * reduce.h: semi-joins of a gather (plan.h: gather_edge): which table is fetched next, and which of its rows need not be.
 *
 * Pure: what is expected and what has come are values from the proxy, which asks the servers for estimates first.
 */
#ifndef PGSHUNT_REDUCE_H
#define PGSHUNT_REDUCE_H

#include "pgshunt/plan.h"

struct reduce_limits {
    int64_t values; /* more are not sent; 0: there are no semi-joins */
    int64_t
        factor; /* a table is to have as many times more rows than there are values; 0: any will do */
};

/* One for each table of the plan. */
struct reduce_table {
    double expected; /* rows, by its own conditions, on all shards together */
    bool fetched;
    double rows; /* ... as many */
};

struct reduce_state {
    const struct gather_plan *plan;
    struct reduce_limits limits;
    struct reduce_table *tables;
    double *
        local; /* for each edge without a table: rows that its `rows` is expected to give; negative: not to be used */
};

/* Whether each mention of the table has an edge, so that it is worth asking what is expected. */
bool reduce_possible(const struct reduce_state *state, int table);

/* The table to fetch next: the one that is expected to have the fewest rows; -1: all are there. */
int reduce_next(const struct reduce_state *state);
/*
 * The edges, as numbers of the plan's, by which `table` might be reduced now, one for each mention (there is room for
 * that many). 0: it is fetched as it is.
 */
int reduce_edges(const struct reduce_state *state, int table, int *edges);
/* Whether that is worth it, by so many values in all. */
bool reduce_pays(const struct reduce_state *state, int table, int64_t values);

/* What gives the values of an edge's source: one row with their count, and the array; NULL, where it is too large, or
 * has no elements. */
struct shard_query reduce_values_query(const struct reduce_state *state, int edge,
                                       struct arena *arena);
/* A binary array of `count` values that an edge can use. The empty one is made, as *array, where `count` is 0. */
bool reduce_takes(const struct gather_edge *edge, struct param *array, int64_t count,
                  struct arena *arena);
/* The rows of `plain` that have in each edge's column (one of them will do) a value of its array. The parameters are
 * those of `client` (NULL: none), and the arrays. */
struct shard_query reduce_query(const struct shard_query *plain, const struct params *client,
                                const struct gather_edge *const *edges, const struct param *arrays,
                                int nedges, struct arena *arena);
/* The array's elements that can be on the shard, where the edge's column is the key; else all of them. */
struct param reduce_for_shard(const struct shardmap *map, const struct gather_edge *edge,
                              const struct param *array, unsigned shard, struct arena *arena);
bool reduce_is_empty(const struct param *array);

#endif

/* lookup_internal.h: what lookup.c (questions), lookup_cache.c and lookup_probe.c (asking a shard) share. */
#ifndef PGSHUNT_PROXY_LOOKUP_INTERNAL_H
#define PGSHUNT_PROXY_LOOKUP_INTERNAL_H

#include <uthash.h>

#include "proxy/list.h"
#include "proxy/lookup.h"
#include "proxy/worker.h"

struct probe;
struct lookup_question;

/* Counters of one lookup of a database, by its function. */
struct lookup_stats {
    char *name; /* "database/function" */
    uint64_t hits, misses, stale, failed;
    int cached; /* values remembered now */
    UT_hash_handle hh;
};

/* What a worker has for lookups; made with the first. */
struct lookups {
    struct worker *worker;
    struct lookup_entry *cache; /* hash; the first is the one used longest ago */
    struct lookup_stats *stats; /* hash */
    struct list_node probes;    /* struct probe */
    struct list_node answered;  /* struct lookup_request: to be gone on with */
};

/* One shard asked for one value. */
struct lookup_ask {
    struct list_node link; /* of its probe's queue, while it is not sent */
    struct probe *probe;   /* NULL: answered, or given up */
    int slot;              /* among those sent */
    unsigned shard;
    struct lookup_question *question;
};

/* ---- lookup.c ---- */

/* The shard has no such row (found false), or has, of this key. */
void lookup_answered(struct lookup_ask *ask, bool found, const char *key);
void lookup_failed(struct lookup_ask *ask);
/* After some of these: sessions that have all their answers go on. */
void lookup_resume(struct lookups *lookups);
const struct lookup_rule *lookup_rule_of(const struct lookup_question *question);
const char *lookup_value_of(const struct lookup_question *question);

/* ---- lookup_cache.c ---- */

/* -1: not remembered. *guess: statements may go there unasked. */
int lookup_cache_get(struct lookups *lookups, const char *database,
                     const struct lookup_rule *lookup, const char *value, bool *guess);
/* Statements may not: such a one has found nothing there. */
void lookup_cache_distrust(struct lookups *lookups, const char *database,
                           const struct lookup_rule *lookup, const char *value);
void lookup_cache_put(struct lookups *lookups, const char *database,
                      const struct lookup_rule *lookup, const char *value, unsigned shard);
void lookup_cache_forget(struct lookups *lookups, const char *database,
                         const struct lookup_rule *lookup, const char *value);
void lookup_cache_free(struct lookups *lookups);
struct lookup_stats *lookup_stats_of(struct lookups *lookups, const char *database,
                                     const struct lookup_rule *lookup);

/* ---- lookup_probe.c ---- */

/* Asks the shard; an answer or a failure follows, from the loop. False: it cannot be asked now. */
bool probe_ask(struct lookups *lookups, const struct database *database, unsigned shard,
               struct lookup_ask *ask);
void probe_give_up(struct lookup_ask *ask); /* nobody waits for it any more */
void probes_tick(struct lookups *lookups);
void probes_free(struct lookups *lookups);

#endif

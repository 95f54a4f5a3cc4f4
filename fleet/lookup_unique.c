/* lookup_unique.c: merges the values of all shards, each shard's in order, and looks for equal ones. */
#include "fleet/lookup_unique.h"

#include <stdlib.h>
#include <string.h>

#define READ_MS (24 * 3600 * 1000LL) /* the first rows may come after a long sort */
#define AT_ONCE "5000"
#define TELL_EVERY 1000000
#define TOLD_MAX 20 /* values that are named */

/* One shard's values on their way. */
struct stream {
    PGresult *rows; /* NULL: the end */
    int row;
};

struct merge_check {
    struct fleet *fleet;
    const struct lookup_rule *lookup;
    const struct lookup_shard *found;
    const struct keyspace *keyspace;
    bool numbers; /* ordered by value, not by bytes */
    struct stream *streams;
    long seen;
    const char *told[TOLD_MAX]; /* values that may be of several keys */
    int ntold;
};

/* ---- streams ---- */

static bool fetch(struct merge_check *c, int shard)
{
    struct stream *stream = &c->streams[shard];
    PQclear(stream->rows);
    stream->row = 0;
    stream->rows = db_query(c->fleet->shards[shard].db, READ_MS, &c->fleet->error,
                            "FETCH " AT_ONCE " FROM pgshunt_lookup", 0);
    if (!stream->rows)
        return fleet_fails(c->fleet, shard, c->lookup->name, "cannot read the values");
    if (!PQntuples(stream->rows)) {
        PQclear(stream->rows);
        stream->rows = NULL;
    }
    return true;
}

static bool open_stream(struct merge_check *c, int shard)
{
    const struct lookup_shard *found = &c->found[shard];
    const char *collate = c->numbers || strcmp(found->type, "uuid") == 0 ? "" : " COLLATE \"C\"";
    const char *sql = FLEET_TEXT(
        c->fleet,
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0;"
        " DECLARE pgshunt_lookup NO SCROLL CURSOR FOR SELECT v::text, one <> other, one FROM"
        " (SELECT %s AS v, min(%s::text) AS one, max(%s::text) AS other FROM %s"
        "  WHERE %s IS NOT NULL GROUP BY %s) AS s ORDER BY v%s",
        found->column, found->key, found->key, found->table, found->column, found->column, collate);
    if (!db_run(c->fleet->shards[shard].db, READ_MS, &c->fleet->error, sql, 0))
        return fleet_fails(c->fleet, shard, c->lookup->name, "cannot read the values");
    return fetch(c, shard);
}

static const char *value_of(const struct stream *stream)
{
    return PQgetvalue(stream->rows, stream->row, 0);
}

static int compare(const struct merge_check *c, const char *a, const char *b)
{
    if (!c->numbers)
        return strcmp(a, b);
    long long x = strtoll(a, NULL, 10), y = strtoll(b, NULL, 10);
    return x < y ? -1 : x > y;
}

/* ---- merging ---- */

static const char *lowest(const struct merge_check *c)
{
    const char *value = NULL;
    for (int i = 0; i < c->fleet->nshards; i++) {
        const char *here = c->streams[i].rows ? value_of(&c->streams[i]) : NULL;
        if (here && (!value || compare(c, here, value) < 0))
            value = here;
    }
    return value;
}

/* While rows are moved to other shards they are on two, of which one owns them: the other's is not asked for. */
static bool is_owned(const struct merge_check *c, int shard, const char *key)
{
    unsigned owner;
    if (!key || !c->keyspace || !shardmap_shard_of_text(c->fleet->map, c->keyspace, key, &owner))
        return true;
    return owner == (unsigned)shard || owner == SHARDMAP_NO_SHARD;
}

/* Steps over the value on every shard that has it. */
static bool take(struct merge_check *c, const char *value)
{
    int shards = 0;
    bool several = false;
    char *copy = mem_strdup(value); /* the rows it is in may go */
    bool good = true;
    for (int i = 0; i < c->fleet->nshards && good; i++) {
        struct stream *stream = &c->streams[i];
        if (!stream->rows || compare(c, value_of(stream), copy) != 0)
            continue;
        bool keys = PQgetvalue(stream->rows, stream->row, 1)[0] == 't';
        several |= keys;
        shards += keys || is_owned(c, i, PQgetvalue(stream->rows, stream->row, 2));
        if (++stream->row == PQntuples(stream->rows))
            good = fetch(c, i);
    }
    if ((shards > 1 || several) && c->ntold < TOLD_MAX)
        c->told[c->ntold++] = arena_strdup(&c->fleet->arena, copy);
    free(copy);
    if (++c->seen % TELL_EVERY == 0)
        fleet_tell(c->fleet, FLEET_NOTE, -1, c->lookup->name,
                   FLEET_TEXT(c->fleet, "%ld values compared", c->seen), NULL);
    return good;
}

static bool merge(struct merge_check *c)
{
    const char *value;
    for (int i = 0; i < c->fleet->nshards; i++)
        if (!open_stream(c, i))
            return false;
    while (c->ntold < TOLD_MAX && (value = lowest(c)))
        if (fleet_stopped(c->fleet) || !take(c, value))
            return false;
    return true;
}

static void close_streams(struct merge_check *c)
{
    for (int i = 0; i < c->fleet->nshards; i++)
        PQclear(c->streams[i].rows);
    fleet_rollback_all(c->fleet);
}

/* ---- what was found ---- */

/* Each shard was read at another moment: a row that was moved meanwhile may have been met twice. */
static bool is_still(struct merge_check *c, const char *value, const char **where)
{
    struct fleet *fleet = c->fleet;
    const char *key = NULL;
    int shards = 0;
    bool several = false;
    *where = "";
    for (int i = 0; i < fleet->nshards; i++) {
        const struct lookup_shard *found = &c->found[i];
        const char *sql = FLEET_TEXT(fleet, "SELECT DISTINCT %s::text FROM %s WHERE %s = $1::%s",
                                     found->key, found->table, found->column, found->type);
        PGresult *rows = fleet_query(fleet, i, sql, 1, value);
        int owned = 0;
        for (int row = 0; rows && row < PQntuples(rows); row++) {
            const char *other = fleet_text(fleet, rows, row, 0);
            if (!is_owned(c, i, other))
                continue;
            owned++;
            several |= key && other && strcmp(key, other) != 0;
            key = other;
        }
        if (owned)
            *where =
                FLEET_TEXT(fleet, "%s%s%s", *where, shards++ ? ", " : "", fleet->shards[i].name);
        PQclear(rows);
    }
    return shards > 1 || several;
}

static int tell_duplicates(struct merge_check *c)
{
    int count = 0;
    const char *where;
    for (int i = 0; i < c->ntold; i++) {
        if (!is_still(c, c->told[i], &where))
            continue;
        count++;
        fleet_tell(c->fleet, FLEET_PROBLEM, -1, c->lookup->name,
                   FLEET_TEXT(c->fleet, "'%.60s' is of several keys, on %s", c->told[i], where),
                   "Make it unique, or set unique = false and run lookup create again.");
    }
    if (c->ntold == TOLD_MAX)
        fleet_tell(c->fleet, FLEET_NOTE, -1, c->lookup->name, "there may be more", NULL);
    return count;
}

bool lookup_unique_check(struct fleet *fleet, const struct lookup_rule *lookup,
                         const struct lookup_shard *found, int *duplicates)
{
    struct merge_check c = {
        .fleet = fleet,
        .lookup = lookup,
        .found = found,
        .keyspace = shardmap_rule(fleet->map, lookup->table)->keyspace,
        .numbers = strstr(found->type, "int") != NULL,
        .streams = arena_array(&fleet->arena, struct stream, fleet->nshards),
    };
    memset(c.streams, 0, sizeof *c.streams * (size_t)fleet->nshards);
    bool good = merge(&c);
    close_streams(&c);
    *duplicates = good ? tell_duplicates(&c) : 0;
    if (good)
        fleet_tell(fleet, FLEET_FACT, -1, lookup->name,
                   FLEET_TEXT(fleet, "%ld values compared over all shards", c.seen), NULL);
    return good;
}

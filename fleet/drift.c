/*
 * drift.c: what is not alike in the schemas of a database's shards, and which shard is the odd one.
 *
 * A definition that most shards share is taken for the right one; where there is no majority, the one that the first
 * of the shards has that have any, so that nothing is proposed to be dropped for a tie.
 */
#include <stdlib.h>
#include <string.h>

#include "fleet/drift.h"
#include "pgshunt/arena.h"

#define uthash_malloc(size) mem_alloc(size)
#include <uthash.h>

#define APPLICATION "pgshuntctl schema"

/* One part on one shard. */
struct part {
    const char *definition; /* NULL: it is not there */
    const char *create, *change, *drop;
};

struct object {
    const char *key;  /* kind, a blank, name */
    const char *name; /* without the kind */
    const char *kind, *parent;
    struct part *parts; /* per shard */
    bool bad;
    struct object *next;
    UT_hash_handle hh;
};

/* A name, whatever is called so. */
struct place {
    const char *name;
    bool *shards; /* where there is one */
    UT_hash_handle hh;
};

struct work {
    struct fleet fleet;
    struct object *objects, *first, **end;
    struct place *places;
    int count;
};

/* ---- reading ---- */

static struct object *take_object(struct work *work, const struct drift_query *query,
                                  const PGresult *rows, int row)
{
    struct fleet *fleet = &work->fleet;
    struct object *object;
    const char *key = FLEET_TEXT(fleet, "%s%s %s", query->bad ? "bad " : "", query->kind,
                                 PQgetvalue(rows, row, 0));
    HASH_FIND(hh, work->objects, key, strlen(key), object);
    if (object)
        return object;
    object = arena_new(&fleet->arena, struct object);
    object->key = key;
    object->kind = query->kind;
    object->name = fleet_text(fleet, rows, row, 0);
    object->parent = fleet_text(fleet, rows, row, 1);
    object->bad = query->bad;
    object->parts = arena_array(&fleet->arena, struct part, fleet->nshards);
    HASH_ADD_KEYPTR(hh, work->objects, object->key, strlen(object->key), object);
    *work->end = object;
    work->end = &object->next;
    work->count++;
    return object;
}

static void note_place(struct work *work, const char *name, int shard)
{
    struct fleet *fleet = &work->fleet;
    struct place *place;
    HASH_FIND(hh, work->places, name, strlen(name), place);
    if (!place) {
        place = arena_new(&fleet->arena, struct place);
        place->name = name;
        place->shards = arena_array(&fleet->arena, bool, fleet->nshards);
        HASH_ADD_KEYPTR(hh, work->places, place->name, strlen(place->name), place);
    }
    place->shards[shard] = true;
}

static bool read_query(struct work *work, const struct drift_query *query, int shard)
{
    struct fleet *fleet = &work->fleet;
    PGresult *rows = fleet_query(fleet, shard, query->sql, 0);
    if (!rows)
        return fleet_fails(fleet, shard, NULL,
                           FLEET_TEXT(fleet, "cannot read each %s", query->kind));
    for (int i = 0; i < PQntuples(rows); i++) {
        struct object *object = take_object(work, query, rows, i);
        object->parts[shard] = (struct part){
            .definition = PQgetisnull(rows, i, 2) ? "" : fleet_text(fleet, rows, i, 2),
            .create = fleet_text(fleet, rows, i, 3),
            .change = fleet_text(fleet, rows, i, 4),
            .drop = fleet_text(fleet, rows, i, 5),
        };
        note_place(work, object->name, shard);
    }
    PQclear(rows);
    return true;
}

/* One snapshot of a shard's catalogs. */
static bool read_shard(struct work *work, int shard)
{
    struct fleet *fleet = &work->fleet;
    if (!fleet_run(fleet, shard, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 0))
        return fleet_fails(fleet, shard, NULL, "cannot begin");
    for (const struct drift_query *query = drift_queries; query->kind; query++)
        if (!read_query(work, query, shard))
            return false;
    return true;
}

/* ---- comparing ---- */

/* What it is a part of is not there either: said of that. */
static bool is_without_parent(const struct work *work, const struct object *object, int shard)
{
    struct place *place;
    if (!*object->parent)
        return false;
    HASH_FIND(hh, work->places, object->parent, strlen(object->parent), place);
    return place && !place->shards[shard];
}

static bool is_same(const struct part *a, const struct part *b)
{
    if (!a->definition || !b->definition)
        return a->definition == b->definition;
    return strcmp(a->definition, b->definition) == 0;
}

static int count_like(const struct object *object, int nshards, int shard)
{
    int count = 0;
    for (int i = 0; i < nshards; i++)
        count += is_same(&object->parts[i], &object->parts[shard]);
    return count;
}

/* The shard whose definition is taken for the right one. */
static int find_right(const struct object *object, int nshards)
{
    int right = 0, most = 0;
    for (int i = 0; i < nshards; i++) {
        int count = 2 * count_like(object, nshards, i) + (object->parts[i].definition != NULL);
        if (count > most) {
            most = count;
            right = i;
        }
    }
    return right;
}

static const char *shards_like(struct fleet *fleet, const struct object *object, int shard)
{
    const char *names = "";
    for (int i = 0; i < fleet->nshards; i++)
        if (is_same(&object->parts[i], &object->parts[shard]))
            names = FLEET_TEXT(fleet, "%s%s%s", names, *names ? ", " : "", fleet->shards[i].name);
    return names;
}

/* Long definitions, as of functions, do not help to see what differs. */
static const char *short_text(struct fleet *fleet, const char *text)
{
    if (!*text)
        return "as usual";
    return strlen(text) > 160 || strchr(text, '\n') ? "other" : FLEET_TEXT(fleet, "%s", text);
}

static void tell_odd(struct fleet *fleet, const struct object *object, int shard, int right)
{
    const struct part *is = &object->parts[shard], *should = &object->parts[right];
    const char *name = FLEET_TEXT(fleet, "%s %s", object->kind, object->name),
               *others = shards_like(fleet, object, right);
    if (!is->definition)
        fleet_tell(
            fleet, FLEET_PROBLEM, shard, name,
            FLEET_TEXT(fleet, "is missing; %s: %s", others, short_text(fleet, should->definition)),
            should->create);
    else if (!should->definition)
        fleet_tell(fleet, FLEET_PROBLEM, shard, name, FLEET_TEXT(fleet, "is not on %s", others),
                   is->drop);
    else
        fleet_tell(fleet, FLEET_PROBLEM, shard, name,
                   FLEET_TEXT(fleet, "%s; %s: %s", short_text(fleet, is->definition), others,
                              short_text(fleet, should->definition)),
                   should->change);
}

static void compare(struct work *work, const struct object *object)
{
    struct fleet *fleet = &work->fleet;
    int right = find_right(object, fleet->nshards);
    for (int i = 0; i < fleet->nshards; i++) {
        const struct part *part = &object->parts[i];
        if (object->bad && part->definition)
            fleet_tell(fleet, FLEET_PROBLEM, i,
                       FLEET_TEXT(fleet, "%s %s", object->kind, object->name),
                       FLEET_TEXT(fleet, "is %s", part->definition), part->drop);
        else if (!object->bad && !is_same(part, &object->parts[right]) &&
                 !is_without_parent(work, object, i) && !is_without_parent(work, object, right))
            tell_odd(fleet, object, i, right);
    }
}

enum fleet_outcome fleet_schema_diff(const struct fleet_request *request)
{
    struct work work = {.count = 0};
    struct fleet *fleet = &work.fleet;
    work.end = &work.first;
    bool good = fleet_open(fleet, request, APPLICATION);
    for (int i = 0; i < fleet->nshards && good; i++)
        good = !fleet_stopped(fleet) && read_shard(&work, i);
    for (const struct object *object = good ? work.first : NULL; object; object = object->next)
        compare(&work, object);
    if (good && !fleet->problems)
        fleet_tell(fleet, FLEET_FACT, -1, NULL,
                   FLEET_TEXT(fleet, "%d things compared on %d shards", work.count, fleet->nshards),
                   NULL);
    if (fleet_stopped(fleet))
        fleet_tell(fleet, FLEET_FAILED, -1, NULL, "interrupted", NULL);
    enum fleet_outcome outcome = fleet_outcome(fleet);
    HASH_CLEAR(hh, work.objects);
    HASH_CLEAR(hh, work.places);
    fleet_close(fleet);
    return outcome;
}

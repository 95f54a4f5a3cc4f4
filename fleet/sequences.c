/* sequences.c: sequences of all shards interleaved, so that their numbers are unique over all of them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fleet/fleet.h"
#include "fleet/id_functions.h"
#include "fleet/sequence_plan.h"
#include "pgshunt/catalog.h"

#define APPLICATION "pgshuntctl sequences"
#define LOCK_TIMEOUT "2s"

/* A column whose values come from a sequence. */
struct use {
    const char *table, *column; /* quoted */
    struct use *next;
};

struct sequence {
    const char *name; /* quoted, with its schema */
    struct use *uses;
    bool sharded, reference, unsharded; /* such tables use it */
    bool wanted;                        /* ... or one that is named */
    struct sequence_state *states;      /* per shard */
    struct sequence *next;
};

struct work {
    struct fleet fleet;
    struct id_numbers ids;
    struct sequence *first, **end;
    const struct catalog_rule *tables; /* only theirs; NULL: all */
    int ntables;
};

/* ---- what is there ---- */

static const char list_sql[] =
    "SELECT c.oid::regclass::text, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle"
    " FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relpersistence <> 't' AND n.nspname NOT IN ('pgshunt', 'information_schema')"
    " AND n.nspname !~ '^pg_'"
    " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass"
    "  AND d.objid = c.oid AND d.deptype = 'e')"
    " ORDER BY 1";

/* Columns that own it or have it in their default, each with the tables that its table is a part of. */
static const char uses_sql[] =
    "WITH RECURSIVE used AS ("
    " SELECT d.objid AS sequence, d.refobjid AS rel, d.refobjsubid AS attnum FROM pg_depend d"
    "  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass"
    "  AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0"
    " UNION"
    " SELECT d.refobjid, f.adrelid, f.adnum FROM pg_depend d"
    "  JOIN pg_attrdef f ON f.oid = d.objid"
    "  WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass"
    "  AND d.refobjsubid = 0"
    "), part AS ("
    " SELECT sequence, rel, attnum, rel AS top FROM used"
    " UNION"
    " SELECT p.sequence, p.rel, p.attnum, i.inhparent FROM part p"
    "  JOIN pg_inherits i ON i.inhrelid = p.top)"
    " SELECT p.sequence::regclass::text, p.rel::regclass::text, quote_ident(a.attname),"
    "  n.nspname, t.relname"
    " FROM part p JOIN pg_sequence s ON s.seqrelid = p.sequence"
    " JOIN pg_attribute a ON a.attrelid = p.rel AND a.attnum = p.attnum"
    " JOIN pg_class t ON t.oid = p.top JOIN pg_namespace n ON n.oid = t.relnamespace"
    " WHERE a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)";

static struct sequence *find(struct work *work, const char *name)
{
    for (struct sequence *sequence = work->first; sequence; sequence = sequence->next)
        if (strcmp(sequence->name, name) == 0)
            return sequence;
    return NULL;
}

static struct sequence *take(struct work *work, const char *name)
{
    struct sequence *sequence = find(work, name);
    if (sequence)
        return sequence;
    sequence = arena_new(&work->fleet.arena, struct sequence);
    sequence->name = name;
    sequence->states = arena_array(&work->fleet.arena, struct sequence_state, work->fleet.nshards);
    *work->end = sequence;
    work->end = &sequence->next;
    return sequence;
}

static bool is_named(const struct work *work, const struct table_rule *rule)
{
    for (int i = 0; i < work->ntables; i++)
        if (shardmap_rule(work->fleet.map, work->tables[i].name) == rule)
            return true;
    return false;
}

static void take_use(struct work *work, const PGresult *rows, int row)
{
    struct fleet *fleet = &work->fleet;
    struct sequence *sequence = find(work, PQgetvalue(rows, row, 0));
    if (!sequence)
        return;
    const struct table_rule *rule =
        shardmap_table(fleet->map, PQgetvalue(rows, row, 3), PQgetvalue(rows, row, 4));
    sequence->sharded |= rule->class == TABLE_SHARDED;
    sequence->reference |= rule->class == TABLE_REFERENCE;
    sequence->unsharded |= rule->class == TABLE_UNSHARDED;
    sequence->wanted |= is_named(work, rule);
    for (const struct use *use = sequence->uses; use; use = use->next)
        if (strcmp(use->table, PQgetvalue(rows, row, 1)) == 0 &&
            strcmp(use->column, PQgetvalue(rows, row, 2)) == 0)
            return;
    struct use *use = arena_new(&fleet->arena, struct use);
    use->table = fleet_text(fleet, rows, row, 1);
    use->column = fleet_text(fleet, rows, row, 2);
    use->next = sequence->uses;
    sequence->uses = use;
}

/* Where it stands now. */
static bool read_position(struct fleet *fleet, int shard, struct sequence *sequence)
{
    struct sequence_state *state = &sequence->states[shard];
    PGresult *rows = fleet_query(
        fleet, shard, FLEET_TEXT(fleet, "SELECT last_value, is_called FROM %s", sequence->name), 0);
    if (!rows)
        return fleet_fails(fleet, shard, sequence->name, "cannot read the sequence");
    state->last = strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
    state->called = PQgetvalue(rows, 0, 1)[0] == 't';
    PQclear(rows);
    return true;
}

static bool read_shard(struct work *work, int shard)
{
    struct fleet *fleet = &work->fleet;
    PGresult *rows = fleet_query(fleet, shard, list_sql, 0);
    if (!rows)
        return fleet_fails(fleet, shard, NULL, "cannot list the sequences");
    bool good = true;
    for (int i = 0; i < PQntuples(rows) && good; i++) {
        struct sequence *sequence = take(work, fleet_text(fleet, rows, i, 0));
        sequence->states[shard] = (struct sequence_state){
            .exists = true,
            .increment = strtoll(PQgetvalue(rows, i, 1), NULL, 10),
            .min = strtoll(PQgetvalue(rows, i, 2), NULL, 10),
            .max = strtoll(PQgetvalue(rows, i, 3), NULL, 10),
            .cycles = PQgetvalue(rows, i, 4)[0] == 't',
        };
        good = read_position(fleet, shard, sequence);
    }
    PQclear(rows);
    rows = good ? fleet_query(fleet, shard, uses_sql, 0) : NULL;
    if (good && !rows)
        return fleet_fails(fleet, shard, NULL, "cannot list who uses the sequences");
    for (int i = 0; rows && i < PQntuples(rows); i++)
        take_use(work, rows, i);
    PQclear(rows);
    return good;
}

/* Those of unsharded tables count on one shard; those of reference tables must be alike. */
static bool is_ours(const struct work *work, const struct sequence *sequence)
{
    if (work->tables)
        return sequence->wanted;
    return sequence->sharded || (!sequence->unsharded && !sequence->reference);
}

/* The tables as what they are to be. */
static void lay_tables(struct work *work)
{
    for (int i = 0; i < work->ntables; i++) {
        const struct catalog_rule *table = &work->tables[i];
        int keyspace = shardmap_keyspace_by_name(work->fleet.map, table->keyspace);
        if (keyspace >= 0)
            shardmap_set_table(work->fleet.map, table->name, keyspace, table->columns,
                               (unsigned)table->ncolumns);
    }
}

static bool open_work(struct work *work, const struct fleet_request *request, int stride)
{
    work->end = &work->first;
    if (!fleet_open(&work->fleet, request, APPLICATION))
        return false;
    lay_tables(work);
    for (int i = 0; i < work->fleet.nshards; i++)
        if (!read_shard(work, i))
            return false;
    return id_numbers_read(&work->fleet, stride, &work->ids);
}

/* The greatest id that any shard's tables have. False: told why not. */
static bool find_highest(struct fleet *fleet, const struct sequence *sequence, int64_t *highest)
{
    *highest = 0;
    for (const struct use *use = sequence->uses; use; use = use->next)
        for (int i = 0; i < fleet->nshards; i++) {
            const char *sql =
                FLEET_TEXT(fleet, "SELECT coalesce(max(%s), 0) FROM %s", use->column, use->table);
            const char *value = fleet_value(fleet, i, sql);
            if (!value)
                return fleet_fails(fleet, i, sequence->name, "cannot read the greatest id");
            int64_t here = strtoll(value, NULL, 10);
            *highest = here > *highest ? here : *highest;
        }
    return true;
}

static enum sequence_verdict judge(const struct work *work, const struct sequence *sequence,
                                   int64_t highest, int64_t *start)
{
    return sequence_plan(sequence->states, work->ids.numbers, work->fleet.nshards, work->ids.stride,
                         highest, start);
}

/* ---- setup ---- */

static const struct {
    const char *text, *mend;
} odd[] = {
    [SEQUENCE_MISSING] = {"is not on every shard",
                          "CREATE SEQUENCE through pgshunt, or DROP SEQUENCE where it is too much"},
    [SEQUENCE_DESCENDING] = {"counts down: it is left alone", "ALTER SEQUENCE ... INCREMENT BY 1"},
    [SEQUENCE_CYCLES] = {"begins again at its end (CYCLE): its numbers are not unique anywhere",
                         "ALTER SEQUENCE ... NO CYCLE"},
    [SEQUENCE_FULL] = {"has no room left below its MAXVALUE for so many shards",
                       "make the column and the sequence bigint, or choose a smaller --stride"},
};

static void tell_odd(struct fleet *fleet, const struct sequence *sequence,
                     enum sequence_verdict verdict)
{
    fleet_tell(fleet, FLEET_PROBLEM, -1, sequence->name, odd[verdict].text, odd[verdict].mend);
}

/* Nobody takes numbers from it any more until the transactions end. */
static bool lock_everywhere(struct work *work, const struct sequence *sequence)
{
    struct fleet *fleet = &work->fleet;
    const char *sql = FLEET_TEXT(fleet,
                                 "BEGIN; SET LOCAL lock_timeout = '" LOCK_TIMEOUT
                                 "'; ALTER SEQUENCE %s INCREMENT BY %d",
                                 sequence->name, work->ids.stride);
    int shard;
    if (fleet_run_all(fleet, sql, &shard))
        return true;
    fleet_fails(fleet, shard, sequence->name, "cannot lock the sequence");
    return false;
}

static bool restart_everywhere(struct work *work, const struct sequence *sequence,
                               const int64_t *start)
{
    struct fleet *fleet = &work->fleet;
    for (int i = 0; i < fleet->nshards; i++)
        if (!fleet_run(fleet, i,
                       FLEET_TEXT(fleet, "ALTER SEQUENCE %s RESTART WITH %" PRId64, sequence->name,
                                  start[i]),
                       0))
            return fleet_fails(fleet, i, sequence->name, "cannot set the sequence");
    return true;
}

static bool commit_everywhere(struct fleet *fleet, const struct sequence *sequence)
{
    for (int i = 0; i < fleet->nshards; i++) {
        if (!fleet_run(fleet, i, "COMMIT", 0))
            return fleet_fails(fleet, i, sequence->name, "cannot commit; run it again");
        fleet->changed = true;
    }
    return true;
}

/* Positions are read again behind the lock: what was given meanwhile counts. */
static bool align(struct work *work, struct sequence *sequence, int64_t highest)
{
    struct fleet *fleet = &work->fleet;
    int64_t *start = arena_array(&fleet->arena, int64_t, fleet->nshards);
    bool good = lock_everywhere(work, sequence);
    for (int i = 0; i < fleet->nshards && good; i++) {
        good = read_position(fleet, i, sequence);
        sequence->states[i].increment = 1; /* not as it is: as numbers were given so far */
    }
    if (good && judge(work, sequence, highest, start) != SEQUENCE_ALIGN) {
        tell_odd(fleet, sequence, SEQUENCE_FULL);
        good = false;
    }
    if (good && restart_everywhere(work, sequence, start) && commit_everywhere(fleet, sequence)) {
        fleet_tell(fleet, FLEET_DONE, -1, sequence->name,
                   FLEET_TEXT(fleet, "interleaved: %s goes on with %" PRId64 ", every %dth number",
                              fleet->shards[0].name, start[0], work->ids.stride),
                   NULL);
        return true;
    }
    fleet_rollback_all(fleet);
    return false;
}

static void set_up(struct work *work, struct sequence *sequence)
{
    struct fleet *fleet = &work->fleet;
    int64_t *start = arena_array(&fleet->arena, int64_t, fleet->nshards), highest;
    if (!is_ours(work, sequence) || !find_highest(fleet, sequence, &highest))
        return;
    enum sequence_verdict verdict = judge(work, sequence, highest, start);
    if (verdict == SEQUENCE_GOOD)
        fleet_tell(fleet, FLEET_FACT, -1, sequence->name, "is interleaved", NULL);
    else if (verdict != SEQUENCE_ALIGN)
        tell_odd(fleet, sequence, verdict);
    else if (fleet->request->dry_run)
        fleet_tell(fleet, FLEET_PLANNED, -1, sequence->name,
                   FLEET_TEXT(fleet, "would be interleaved from %" PRId64 " on, every %dth number",
                              start[0], work->ids.stride),
                   NULL);
    else
        align(work, sequence, highest);
}

/* One at a time; ends with the connection. */
static bool lock_out_others(struct fleet *fleet)
{
    const char *got = fleet_value(fleet, 0, "SELECT pg_try_advisory_lock(1885825908, 1936028005)");
    if (got && *got == 't')
        return true;
    if (got)
        fleet_tell(fleet, FLEET_FAILED, 0, NULL, "another setup of sequences is running",
                   "wait until it is done");
    else
        fleet_fails(fleet, 0, NULL, "cannot lock out others");
    return false;
}

static bool has_ours(const struct work *work)
{
    for (const struct sequence *sequence = work->first; sequence; sequence = sequence->next)
        if (is_ours(work, sequence))
            return true;
    return !work->tables;
}

static enum fleet_outcome set_all_up(struct work *work, const struct fleet_request *request,
                                     int stride)
{
    struct fleet *fleet = &work->fleet;
    if (open_work(work, request, stride) && has_ours(work) &&
        (request->dry_run || lock_out_others(fleet)) && id_functions_install(fleet, &work->ids))
        for (struct sequence *sequence = work->first; sequence && !fleet_stopped(fleet);
             sequence = sequence->next)
            set_up(work, sequence);
    if (fleet_stopped(fleet))
        fleet_tell(fleet, FLEET_FAILED, -1, NULL, "interrupted", "run it again");
    enum fleet_outcome outcome = fleet_outcome(fleet);
    fleet_close(fleet);
    return outcome;
}

enum fleet_outcome fleet_sequences_setup(const struct fleet_request *request, int stride)
{
    struct work work = {.first = NULL};
    return set_all_up(&work, request, stride);
}

enum fleet_outcome fleet_sequences_setup_tables(const struct fleet_request *request,
                                                const struct catalog_rule *tables, int count)
{
    struct work work = {.tables = tables, .ntables = count};
    return set_all_up(&work, request, 0);
}

/* ---- check ---- */

/* Ids that a shard has yet to give and that a table has already. */
static void check_taken(struct work *work, const struct sequence *sequence, int giver,
                        const struct use *use)
{
    struct fleet *fleet = &work->fleet;
    int64_t next = sequence_next(&sequence->states[giver]);
    for (int i = 0; i < fleet->nshards; i++) {
        const char *sql = FLEET_TEXT(fleet,
                                     "SELECT coalesce((SELECT %s::text FROM %s WHERE %s >= %" PRId64
                                     " AND (%s::bigint - %" PRId64 ") %% %" PRId64
                                     " = 0 ORDER BY %s DESC LIMIT 1), '')",
                                     use->column, use->table, use->column, next, use->column, next,
                                     sequence->states[giver].increment, use->column);
        const char *value = fleet_value(fleet, i, sql);
        if (!value)
            fleet_fails(fleet, i, sequence->name, "cannot look for ids");
        else if (*value)
            fleet_tell(fleet, FLEET_PROBLEM, giver, sequence->name,
                       FLEET_TEXT(fleet, "will give ids that %s has already on %s, up to %s",
                                  use->table, fleet->shards[i].name, value),
                       FLEET_TEXT(fleet, "on %s: SELECT setval('%s', %s)",
                                  fleet->shards[giver].name, sequence->name, value));
    }
}

static void check_one(struct work *work, const struct sequence *sequence)
{
    struct fleet *fleet = &work->fleet;
    int64_t *start = arena_array(&fleet->arena, int64_t, fleet->nshards);
    if (!is_ours(work, sequence))
        return;
    enum sequence_verdict verdict = judge(work, sequence, 0, start);
    if (verdict != SEQUENCE_GOOD && verdict != SEQUENCE_ALIGN) {
        tell_odd(fleet, sequence, verdict);
        return;
    }
    if (verdict == SEQUENCE_ALIGN) {
        fleet_tell(fleet, FLEET_PROBLEM, -1, sequence->name,
                   "is not interleaved: shards give the same numbers",
                   FLEET_TEXT(fleet, "pgshuntctl sequences setup %s", fleet->database->name));
        return;
    }
    int before = fleet->problems + fleet->failed;
    for (int i = 0; i < fleet->nshards; i++)
        for (const struct use *use = sequence->uses; use; use = use->next)
            check_taken(work, sequence, i, use);
    if (fleet->problems + fleet->failed == before)
        fleet_tell(fleet, FLEET_FACT, -1, sequence->name, "is interleaved", NULL);
}

enum fleet_outcome fleet_sequences_check(const struct fleet_request *request)
{
    struct work work = {.first = NULL};
    struct fleet *fleet = &work.fleet;
    if (open_work(&work, request, 0)) {
        for (int i = 0; i < fleet->nshards; i++)
            if (work.ids.news[i])
                fleet_tell(
                    fleet, FLEET_PROBLEM, i, NULL,
                    "the functions for ids are not installed, or are another shard's",
                    FLEET_TEXT(fleet, "pgshuntctl sequences setup %s", fleet->database->name));
        for (struct sequence *sequence = work.first; sequence && !fleet_stopped(fleet);
             sequence = sequence->next)
            check_one(&work, sequence);
    }
    if (fleet_stopped(fleet))
        fleet_tell(fleet, FLEET_FAILED, -1, NULL, "interrupted", NULL);
    enum fleet_outcome outcome = fleet_outcome(fleet);
    fleet_close(fleet);
    return outcome;
}

/* ---- show ---- */

static const char *use_words(struct fleet *fleet, const struct sequence *sequence)
{
    const char *words = "";
    for (const struct use *use = sequence->uses; use; use = use->next)
        words = FLEET_TEXT(fleet, "%s%s%s.%s", words, *words ? ", " : "", use->table, use->column);
    const char *kind = sequence->sharded     ? ""
                       : sequence->reference ? " (reference table)"
                       : sequence->unsharded ? " (on one shard)"
                                             : "";
    return *words ? FLEET_TEXT(fleet, "; for %s%s", words, kind) : "";
}

enum fleet_outcome fleet_sequences_show(const struct fleet_request *request)
{
    struct work work = {.first = NULL};
    struct fleet *fleet = &work.fleet;
    bool good = open_work(&work, request, 0);
    for (const struct sequence *sequence = good ? work.first : NULL; sequence;
         sequence = sequence->next)
        for (int i = 0; i < fleet->nshards; i++)
            if (sequence->states[i].exists)
                fleet_tell(fleet, FLEET_FACT, i, sequence->name,
                           FLEET_TEXT(fleet, "next %" PRId64 ", by %" PRId64 "%s",
                                      sequence_next(&sequence->states[i]),
                                      sequence->states[i].increment, use_words(fleet, sequence)),
                           NULL);
    enum fleet_outcome outcome = fleet_outcome(fleet);
    fleet_close(fleet);
    return outcome;
}

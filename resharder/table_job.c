/* table_job.c: tables that enter a keyspace, or leave it: what is wished, recorded, held and turned over. */
#include "resharder/table_job.h"

#include <string.h>

#include "pgshunt/fleet.h"
#include "resharder/job.h"

#define SEQUENCE_TRIES 5

static void refuse(struct reshard *reshard, const char *text, const char *mend)
{
    reshard_tell(reshard, RESHARD_FAILED, NULL, NULL, text, mend);
}

/* ---- names ---- */

/* The next of a list with commas, without blanks around it; NULL: there is none. */
static const char *next_name(struct reshard *reshard, const char **at)
{
    const char *begin = *at + strspn(*at, ", "), *end = begin;
    for (bool quoted = false; *end && (quoted || *end != ','); end++)
        quoted ^= *end == '"';
    *at = end;
    while (end > begin && end[-1] == ' ')
        end--;
    return end > begin ? arena_strndup(&reshard->arena, begin, (size_t)(end - begin)) : NULL;
}

static int count_names(struct reshard *reshard, const char *list)
{
    int count = 0;
    for (const char *at = list; at && next_name(reshard, &at);)
        count++;
    return count;
}

/* ---- the key ---- */

/* What follows "items." in "items.owner_id"; NULL: it is of no table, or of another. */
static const char *column_of(const char *word, const char *table)
{
    size_t length = strlen(table);
    return strncmp(word, table, length) == 0 && word[length] == '.' ? word + length + 1 : NULL;
}

static bool is_of_a_table(struct reshard *reshard, const struct reshard_wish *wish,
                          const char *word)
{
    const char *name;
    for (const char *at = wish->tables; (name = next_name(reshard, &at));)
        if (column_of(word, name))
            return true;
    return false;
}

/* The columns said of the table by its name, else those said of all. */
static void find_columns(struct reshard *reshard, const struct reshard_wish *wish,
                         struct catalog_rule *rule)
{
    const char **columns =
        arena_array(&reshard->arena, const char *, count_names(reshard, wish->by) + 1);
    const char *word;
    rule->columns = columns;
    for (const char *at = wish->by; at && (word = next_name(reshard, &at));)
        if (column_of(word, rule->name))
            columns[rule->ncolumns++] = column_of(word, rule->name);
    if (rule->ncolumns)
        return;
    for (const char *at = wish->by; at && (word = next_name(reshard, &at));)
        if (!is_of_a_table(reshard, wish, word))
            columns[rule->ncolumns++] = word;
}

/* ---- what is wished ---- */

static bool take_entering(struct reshard *reshard, const struct reshard_wish *wish,
                          const struct table_job *tables, struct catalog_rule *rule)
{
    const struct table_rule *is = shardmap_rule(reshard->map, rule->name);
    int columns = tables->keyspace->nparts ? (int)tables->keyspace->nparts : 1;
    find_columns(reshard, wish, rule);
    if (rule->ncolumns != columns) {
        refuse(reshard,
               RESHARD_TEXT(reshard,
                            "the key of keyspace \"%s\" has %d columns, not the %d that --by"
                            " gives table \"%s\"",
                            rule->keyspace, columns, rule->ncolumns, rule->name),
               RESHARD_TEXT(reshard, "--by COLUMN%s, or --by %s.COLUMN%s",
                            columns > 1 ? ",COLUMN" : "", rule->name,
                            columns > 1 ? RESHARD_TEXT(reshard, ",%s.COLUMN", rule->name) : ""));
        return false;
    }
    if (!is || is->class == TABLE_UNSHARDED)
        return true;
    refuse(reshard,
           RESHARD_TEXT(reshard, "table \"%s\" is %s", rule->name,
                        is->class == TABLE_REFERENCE ? "a reference table" : "sharded already"),
           is->class == TABLE_REFERENCE ? "Take it out of `reference` first."
                                        : "Take it out of the configuration until it has moved: "
                                          "pgshuntctl map show says what is recorded.");
    return false;
}

static bool take_leaving(struct reshard *reshard, struct table_job *tables,
                         struct catalog_rule *rule)
{
    const struct table_rule *is = shardmap_rule(reshard->map, rule->name);
    if (!is || is->class != TABLE_SHARDED) {
        refuse(reshard,
               RESHARD_TEXT(reshard, "table \"%s\" is in no keyspace by that name", rule->name),
               "Write it as the configuration does: pgshuntctl map show, and the keyspaces.");
        return false;
    }
    if (tables->keyspace && tables->keyspace != is->keyspace) {
        refuse(reshard, "the tables are of several keyspaces", "A job for each keyspace.");
        return false;
    }
    const char **columns = arena_array(&reshard->arena, const char *, SHARDMAP_MAX_PARTS);
    rule->ncolumns = is->nparts ? (int)is->nparts : 1;
    for (int i = 0; i < rule->ncolumns; i++)
        columns[i] = is->nparts ? is->parts[i] : is->key;
    tables->keyspace = is->keyspace;
    rule->columns = columns;
    rule->keyspace = is->keyspace->name;
    return true;
}

static bool take_tables(struct reshard *reshard, const struct reshard_wish *wish,
                        struct table_job *tables)
{
    int count = count_names(reshard, wish->tables);
    struct catalog_rule *rules = arena_array(&reshard->arena, struct catalog_rule, count + 1);
    const char *name;
    tables->rules = rules;
    for (const char *at = wish->tables; (name = next_name(reshard, &at)); tables->count++) {
        struct catalog_rule *rule = &rules[tables->count];
        *rule = (struct catalog_rule){.name = name, .keyspace = wish->into};
        if (!(tables->out ? take_leaving(reshard, tables, rule)
                          : take_entering(reshard, wish, tables, rule)))
            return false;
    }
    if (!tables->count)
        refuse(reshard, "no table is named", "--tables orders,items");
    return tables->count > 0;
}

/* ---- where their rows go ---- */

static void find_moves(struct reshard *reshard, const struct table_job *tables)
{
    const struct keyspace *keyspace = tables->keyspace;
    struct move *items = arena_array(&reshard->arena, struct move, keyspace->nbuckets);
    int count = 0;
    for (unsigned first = 0, last; first < keyspace->nbuckets; first = last + 1) {
        unsigned owner = keyspace->bucket_shard[first];
        for (last = first;
             last + 1 < keyspace->nbuckets && keyspace->bucket_shard[last + 1] == owner;)
            last++;
        if (owner)
            items[count++] = (struct move){.keyspace = keyspace,
                                           .first = first,
                                           .last = last,
                                           .source = tables->out ? owner : 0,
                                           .target = tables->out ? 0 : owner};
    }
    reshard->moves = (struct moves){.map = reshard->map, .items = items, .count = count};
}

/* The map has them as the keyspace's from here on, whatever they are now. */
static void lay(struct reshard *reshard, const struct table_job *tables)
{
    int keyspace = shardmap_keyspace_by_name(reshard->map, tables->keyspace->name);
    for (int i = 0; i < tables->count; i++)
        shardmap_set_table(reshard->map, tables->rules[i].name, keyspace, tables->rules[i].columns,
                           (unsigned)tables->rules[i].ncolumns);
    reshard->moves.tables = tables->rules;
    reshard->moves.ntables = tables->count;
    reshard->moves.home = 0;
}

struct table_job *table_job_wish(struct reshard *reshard, const struct reshard_wish *wish)
{
    struct table_job *tables = arena_new(&reshard->arena, struct table_job);
    int keyspace = wish->into ? shardmap_keyspace_by_name(reshard->map, wish->into) : -1;
    *tables = (struct table_job){.out = wish->out};
    if (!wish->out && keyspace < 0) {
        refuse(reshard,
               RESHARD_TEXT(reshard, "the configuration has no keyspace \"%s\"",
                            wish->into ? wish->into : ""),
               "Add it to the database, without tables, and reload the proxies; then --into NAME.");
        return NULL;
    }
    if (!wish->out)
        tables->keyspace = shardmap_keyspace(reshard->map, (unsigned)keyspace);
    if (!take_tables(reshard, wish, tables))
        return NULL;
    if (tables->keyspace->map == MAP_LIST && tables->keyspace->rest == SHARDMAP_NO_BUCKET) {
        refuse(reshard,
               RESHARD_TEXT(reshard,
                            "tables are not moved into keyspace \"%s\", or out of it: a row may be "
                            "in none of its lists",
                            tables->keyspace->name),
               "Give the keyspace a default and reload the proxies.");
        return NULL;
    }
    find_moves(reshard, tables);
    lay(reshard, tables);
    if (reshard->moves.count)
        return tables;
    refuse(reshard,
           RESHARD_TEXT(reshard, "shard %s owns all buckets of keyspace \"%s\": no row has to move",
                        shardmap_shard_name(reshard->map, 0), tables->keyspace->name),
           "Change the configuration and reload the proxies: the rows are where they have to be.");
    return NULL;
}

/* ---- recorded, and read again ---- */

json_t *table_job_json(const struct table_job *tables)
{
    json_t *list = json_array();
    for (int i = 0; i < tables->count; i++) {
        json_t *columns = json_array();
        for (int c = 0; c < tables->rules[i].ncolumns; c++)
            json_array_append_new(columns, json_string(tables->rules[i].columns[c]));
        json_array_append_new(
            list, json_pack("{ss so}", "name", tables->rules[i].name, "columns", columns));
    }
    return json_pack("{ss sb so}", "keyspace", tables->keyspace->name, "out", (int)tables->out,
                     "tables", list);
}

static bool read_rule(struct reshard *reshard, const struct table_job *tables, const json_t *item,
                      struct catalog_rule *rule)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    const json_t *list = json_object_get(item, "columns");
    const char **columns = arena_array(&reshard->arena, const char *, json_array_size(list));
    *rule = (struct catalog_rule){.keyspace = tables->keyspace->name, .columns = columns};
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *column = json_string_value(json_array_get(list, i));
        if (!column)
            return false;
        columns[rule->ncolumns++] = arena_strdup(&reshard->arena, column);
    }
    rule->name = name ? arena_strdup(&reshard->arena, name) : NULL;
    return name && rule->ncolumns == (int)(tables->keyspace->nparts ? tables->keyspace->nparts : 1);
}

static struct table_job *unreadable(struct reshard *reshard)
{
    reshard->error = (struct db_error){
        .sqlstate = "42704", .hint = "Put the keyspace back into the configuration as it was."};
    snprintf(reshard->error.text, sizeof reshard->error.text,
             "the configuration does not have the keyspace of the job's tables any more, with as "
             "many columns in its key");
    return NULL;
}

struct table_job *table_job_read(struct reshard *reshard, const json_t *options)
{
    struct table_job *tables = arena_new(&reshard->arena, struct table_job);
    const json_t *said = json_object_get(options, "move_table"),
                 *list = json_object_get(said, "tables");
    const char *name = json_string_value(json_object_get(said, "keyspace"));
    int keyspace = name ? shardmap_keyspace_by_name(reshard->map, name) : -1;
    if (keyspace < 0)
        return unreadable(reshard);
    struct catalog_rule *rules =
        arena_array(&reshard->arena, struct catalog_rule, json_array_size(list) + 1);
    *tables = (struct table_job){.rules = rules,
                                 .keyspace = shardmap_keyspace(reshard->map, (unsigned)keyspace),
                                 .out = json_is_true(json_object_get(said, "out"))};
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!read_rule(reshard, tables, json_array_get(list, i), &rules[tables->count++]))
            return unreadable(reshard);
    lay(reshard, tables);
    return tables;
}

/* ---- what the catalog says of them ---- */

/* As tables of the keyspace, or unsharded. */
static const struct catalog_rule *rules_as(struct reshard *reshard, const struct table_job *tables,
                                           bool sharded)
{
    struct catalog_rule *rules = arena_array(&reshard->arena, struct catalog_rule, tables->count);
    for (int i = 0; i < tables->count; i++) {
        rules[i] = tables->rules[i];
        if (!sharded) {
            rules[i].keyspace = NULL;
            rules[i].ncolumns = 0;
        }
    }
    return rules;
}

bool table_job_keep(struct reshard *reshard, const struct job *job)
{
    return catalog_keep_tables(reshard_catalog(reshard), reshard->request->database, job->name,
                               rules_as(reshard, job->tables, job->tables->out), job->tables->count,
                               &reshard->error);
}

bool table_job_hold(struct reshard *reshard, const struct job *job, int64_t lease_ms, int64_t *hold)
{
    int count = job->tables->count;
    const char **names = arena_array(&reshard->arena, const char *, count);
    for (int i = 0; i < count; i++)
        names[i] = job->tables->rules[i].name;
    return catalog_hold_tables(reshard_catalog(reshard), reshard->request->database, job->name,
                               names, count, lease_ms, hold, &reshard->error);
}

/* The buckets stay with who owns them; that is the side that is not the tables' home. */
static const struct catalog_move *owners_of(struct reshard *reshard, const struct table_job *tables)
{
    const struct moves *moves = &reshard->moves;
    struct catalog_move *owners = arena_array(&reshard->arena, struct catalog_move, moves->count);
    for (int i = 0; i < moves->count; i++) {
        const struct move *move = &moves->items[i];
        owners[i] = (struct catalog_move){
            .range = {tables->keyspace->name, move->first, move->last},
            .target = shardmap_shard_name(reshard->map, tables->out ? move->source : move->target)};
    }
    return owners;
}

bool table_job_flip(struct reshard *reshard, const struct job *job, int64_t hold, bool forth,
                    const char *state)
{
    const struct table_job *tables = job->tables;
    bool sharded = forth != tables->out;
    struct catalog_turn turn = {
        .job = job->name,
        .attempt = job->attempt,
        .state = state,
        .hold = hold,
        .epoch = job->epoch,
        .rules = rules_as(reshard, tables, sharded),
        .nrules = tables->count,
        .owners = owners_of(reshard, tables),
        .nowners = reshard->moves.count,
        .keyspace = tables->keyspace->name,
        .home = shardmap_shard_name(reshard->map, reshard->moves.home),
        .ghosts = sharded,
    };
    return catalog_flip_tables(reshard_catalog(reshard), reshard->request->database, &turn,
                               &reshard->error);
}

bool table_job_settle(struct reshard *reshard, const struct job *job, bool cancelled)
{
    return !job->tables ||
           catalog_settle_tables(reshard_catalog(reshard), reshard->request->database, job->name,
                                 cancelled, &reshard->error);
}

/* ---- sequences ---- */

static void tell_sequence(void *arg, const struct fleet_event *event)
{
    static const enum reshard_event_kind kinds[] = {
        [FLEET_FACT] = RESHARD_FACT, [FLEET_PROBLEM] = RESHARD_PROBLEM,
        [FLEET_NOTE] = RESHARD_NOTE, [FLEET_PLANNED] = RESHARD_PLANNED,
        [FLEET_DONE] = RESHARD_STEP, [FLEET_FAILED] = RESHARD_NOTE,
    };
    reshard_tell(arg, kinds[event->kind], event->shard, event->object, event->text, event->mend);
}

/* A transaction that has taken a number is waited for, but not for long: so more than once. */
bool table_job_sequences(struct reshard *reshard, const struct job *job)
{
    const struct table_job *tables = job->tables;
    struct fleet_request request = {
        .config = reshard->request->config,
        .database = reshard->request->database,
        .user = reshard->request->user,
        .stop = reshard->request->stop,
        .tell = tell_sequence,
        .arg = reshard,
    };
    if (tables->out)
        return true;
    for (int i = 0; i < SEQUENCE_TRIES && !reshard_stopped(reshard); i++)
        if (fleet_sequences_setup_tables(&request, tables->rules, tables->count) ==
            FLEET_OUTCOME_DONE)
            return true;
    reshard->error = (struct db_error){.sqlstate = "55P03"};
    snprintf(reshard->error.text, sizeof reshard->error.text,
             "the sequences of the tables could not be interleaved");
    snprintf(reshard->error.hint, sizeof reshard->error.hint,
             "Run it again when what was said above is mended.");
    return false;
}

/* ---- for people ---- */

static const char *line_of(struct reshard *reshard, const struct catalog_rule *rule)
{
    const char *columns = "";
    for (int i = 0; i < rule->ncolumns; i++)
        columns = RESHARD_TEXT(reshard, "%s%s\"%s\"", columns, i ? ", " : "", rule->columns[i]);
    return rule->ncolumns > 1
               ? RESHARD_TEXT(reshard, "{ name = \"%s\"; key = ( %s ); }", rule->name, columns)
               : RESHARD_TEXT(reshard, "{ name = \"%s\"; key = %s; }", rule->name, columns);
}

void table_job_advise(struct reshard *reshard, const struct job *job)
{
    const struct table_job *tables = job->tables;
    for (int i = 0; tables && i < tables->count; i++)
        reshard_tell(reshard, RESHARD_NOTE, NULL, tables->rules[i].name,
                     tables->out
                         ? "is unsharded; the catalog says so, and the configuration may, too"
                         : RESHARD_TEXT(reshard,
                                        "is a table of keyspace %s; the catalog says so, and the"
                                        " configuration may, too",
                                        tables->keyspace->name),
                     RESHARD_TEXT(reshard,
                                  tables->out ? "take out of the tables of keyspace %s: %s"
                                              : "put into the tables of keyspace %s: %s",
                                  tables->keyspace->name, line_of(reshard, &tables->rules[i])));
}

void table_job_tell(struct reshard *reshard, const struct table_job *tables,
                    enum reshard_event_kind kind)
{
    for (int i = 0; i < tables->count; i++)
        reshard_tell(reshard, kind, NULL, tables->rules[i].name,
                     RESHARD_TEXT(reshard, "%s keyspace %s: %s", tables->out ? "out of" : "into",
                                  tables->keyspace->name, line_of(reshard, &tables->rules[i])),
                     NULL);
}

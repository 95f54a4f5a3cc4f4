/*
 * plan_schemas.c: schemas that live on one shard each.
 *
 * A table in such a schema is an instance whose shard is known from the start, with a key that is no
 * column: it is joined with nothing by key, so that rows of several shards meet by gathering alone.
 *
 * Which schema a name without one means is decided as the server does, along the search_path; the schema
 * snapshot says what is where. A name that nobody knows is taken to be in the first mapped schema of the
 * path: the server there looks for it along the same path, and finds nothing else.
 */
#include <ctype.h>

#include "router/plan_internal.h"

#define MAX_PATH 32

/* ---- the search path ---- */

/* Takes the next identifier of a list as search_path has it; false: the end, or no list. */
static bool next_name(struct arena *arena, const char **at, const char **name)
{
    const char *p = *at;
    while (isspace((unsigned char)*p) || *p == ',')
        p++;
    if (!*p)
        return false;
    char *out = arena_alloc(arena, strlen(p) + 1);
    size_t length = 0;
    bool quoted = *p == '"';
    for (p += quoted; *p && (quoted || (*p != ',' && !isspace((unsigned char)*p))); p++) {
        if (quoted && *p == '"' && *++p != '"')
            break;
        out[length++] = quoted ? *p : (char)tolower((unsigned char)*p);
    }
    out[length] = '\0';
    *name = out;
    *at = p;
    return true;
}

void plan_read_path(struct planner *p)
{
    const struct route_session *session = p->input->session;
    const char *at = session ? session->search_path : NULL, *name;
    p->path = NULL;
    p->npath = 0;
    p->path_rule = NULL;
    if (!at || !shardmap_has_schemas(p->map))
        return;
    p->path = arena_array(p->arena, const char *, MAX_PATH);
    while (p->npath < MAX_PATH && next_name(p->arena, &at, &name)) {
        if (same_name(name, "$user"))
            name = session->user ? session->user : "";
        const struct table_rule *rule = shardmap_schema(p->map, name);
        if (rule && !p->path_rule)
            p->path_rule = rule;
        p->path[p->npath++] = name;
    }
}

/* The schema that an unqualified name means, if it matters here; NULL: whatever it means without. */
const char *plan_schema_of(const struct planner *p, const char *schema, const char *name)
{
    if (schema || !p->path_rule)
        return schema;
    const struct route_session *session = p->input->session;
    const char *missed =
        NULL; /* a mapped schema that has no such table, if nothing changed since */
    for (int i = 0; i < p->npath && p->schema; i++) {
        bool found = schema_relation(p->schema, p->path[i], name);
        if (found && missed && session->schema_is_stale)
            plan_needs_schema(p, missed, name);
        if (found)
            return p->path[i];
        if (!missed && shardmap_schema(p->map, p->path[i]))
            missed = p->path[i];
    }
    if (strncmp(name, "pg_", 3) == 0 ||
        shardmap_table(p->map, NULL, name)->class != TABLE_UNSHARDED)
        return NULL;
    plan_needs_schema(p, p->path_rule->schema, name);
    return p->path_rule->schema;
}

const struct schema_relation *plan_relation(const struct planner *p, const char *schema,
                                            const char *name)
{
    return p->schema ? schema_relation(p->schema, plan_schema_of(p, schema, name), name) : NULL;
}

/* ---- views ---- */

bool plan_is_pinned_view(const struct planner *p, const struct table_rule *rule,
                         const struct schema_relation *view)
{
    if (!view || view->kind != 'v')
        return true;
    for (const struct schema_part *part = view->parts; part; part = part->next) {
        if (part->kind != PART_RELATION)
            continue;
        const struct table_rule *inside = plan_rule(p, part->schema, part->name);
        bool catalog =
            strncmp(part->schema, "pg_", 3) == 0 || same_name(part->schema, "information_schema");
        bool here = inside->class == TABLE_PINNED
                        ? inside->shard == rule->shard
                        : inside->class == TABLE_REFERENCE || catalog ||
                              (inside->class == TABLE_UNSHARDED && rule->shard == 0);
        /* A view behind it is of the schema, and was looked at when it was named; or it may be anything. */
        if (!here || (inside->class == TABLE_UNSHARDED && !catalog))
            return false;
    }
    return view->resolved;
}

/* ---- queries ---- */

const struct instance *plan_pinned(const struct planner *p)
{
    for (int i = 0; i < p->ninstances; i++)
        if (p->instances[i].rule->class == TABLE_PINNED)
            return &p->instances[i];
    return NULL;
}

bool plan_refuse_pinned_write(struct planner *p, const struct query *query)
{
    for (int i = 0; i < p->ninstances; i++) {
        const struct instance *instance = &p->instances[i];
        if (!instance->target || instance->rule->class != TABLE_PINNED)
            continue;
        plan_refuse(p,
                    "Read the rows first, and give their values in a statement for that schema "
                    "alone; both may be in one transaction.",
                    "%s of a table in schema \"%s\", which is on shard %s, with rows of other "
                    "shards is not supported yet",
                    query->kind == QUERY_INSERT ? "INSERT" : p->statement->tag,
                    instance->rule->schema, shardmap_shard_name(p->map, instance->rule->shard));
        return true;
    }
    return false;
}

/* ---- utilities ---- */

/* What a utility statement names. */
struct places {
    const struct table_rule *pinned; /* the first that is in a mapped schema */
    const struct table_rule *other;  /* one on another shard */
    const char *elsewhere;           /* something that is not on that shard alone */
    const char *unclear;             /* a name without a schema that could be in several */
};

static void add_place(struct places *places, const struct table_rule *rule)
{
    if (!places->pinned)
        places->pinned = rule;
    else if (rule->shard != places->pinned->shard)
        places->other = rule;
}

static bool tag_has(const struct statement *statement, const char *word)
{
    return strstr(statement->tag, word) != NULL;
}

/* CREATE of a relation makes it in the first schema of the path. */
static const struct table_rule *rule_of_made(const struct planner *p)
{
    return p->npath ? shardmap_schema(p->map, p->path[0]) : NULL;
}

static bool makes_it(const struct statement *statement, int index)
{
    bool creates = strncmp(statement->tag, "CREATE", 6) == 0 && !tag_has(statement, "INDEX") &&
                   !tag_has(statement, "TRIGGER") && !tag_has(statement, "RULE") &&
                   !tag_has(statement, "POLICY") && !tag_has(statement, "STATISTICS");
    return creates && index == 0 && statement->relations[0].written;
}

static void look_at_relation(const struct planner *p, int index, struct places *places)
{
    const struct statement *statement = p->statement;
    const struct relation_ref *ref = &statement->relations[index];
    const struct table_rule *rule = plan_rule(p, ref->schema, ref->name);
    if (!ref->schema && p->path_rule && makes_it(statement, index)) {
        const struct table_rule *made = rule_of_made(p);
        rule = made ? made : shardmap_table(p->map, NULL, ref->name);
    } else if (!ref->schema && p->path_rule) {
        plan_needs_schema(p, rule->class == TABLE_PINNED ? rule->schema : NULL, ref->name);
        if (tag_has(statement, "INDEX") && strncmp(statement->tag, "CREATE", 6) != 0 &&
            !(p->schema && plan_relation(p, NULL, ref->name))) {
            places->unclear = ref->name; /* an index: the schema does not know them */
            return;
        }
    }
    bool like = statement->kind == STMT_CREATE_TABLE && !ref->written &&
                !strcasestr(statement->text, "references");
    if (rule->class == TABLE_PINNED)
        add_place(places, rule);
    else if (ref->written || (rule->class != TABLE_REFERENCE && !like))
        places->elsewhere = ref->name;
}

static void look_at_schemas(const struct planner *p, struct places *places)
{
    const struct statement *statement = p->statement;
    for (int i = 0; i < statement->nschemas; i++) {
        const struct object_schema *ref = &statement->schemas[i];
        const struct table_rule *rule = ref->name   ? shardmap_schema(p->map, ref->name)
                                        : ref->made ? rule_of_made(p)
                                                    : NULL;
        if (rule)
            add_place(places, rule);
        else if (!ref->name && !ref->made && p->path_rule)
            places->unclear = "it";
        else
            places->elsewhere = ref->name ? ref->name : "public";
    }
    for (int i = 0; i < statement->nfunctions && statement->kind == STMT_CALL; i++) {
        const struct function_ref *call = &statement->functions[i];
        const struct table_rule *rule = call->schema ? shardmap_schema(p->map, call->schema) : NULL;
        if (rule)
            add_place(places, rule);
    }
}

static void refuse_unclear(struct planner *p, const struct places *places)
{
    plan_refuse(p, "Write the name with its schema.",
                "%s: with this search_path the name \"%s\" could be in schema \"%s\", which is on "
                "one shard alone, or in one that is on all",
                p->statement->tag, places->unclear, p->path_rule->schema);
}

static bool is_about_objects(enum statement_kind kind)
{
    return kind == STMT_DDL || kind == STMT_DDL_NO_TX || kind == STMT_CREATE_TABLE ||
           kind == STMT_CREATE_TABLE_AS || kind == STMT_TRUNCATE || kind == STMT_LOCK ||
           kind == STMT_CALL || kind == STMT_COPY_FROM || kind == STMT_COPY_TO;
}

bool plan_in_schema(struct planner *p)
{
    const struct statement *statement = p->statement;
    struct places places = {NULL, NULL, NULL, NULL};
    if (!shardmap_has_schemas(p->map) || statement->create_temp)
        return false;
    if (statement->kind == STMT_DO && p->path_rule) {
        plan_direct(p, plan_home(p), "search_path");
        return true;
    }
    if (!is_about_objects(statement->kind) || (statement->kind == STMT_COPY_TO && statement->inner))
        return false;
    for (int i = 0; i < statement->nrelations; i++)
        look_at_relation(p, i, &places);
    look_at_schemas(p, &places);
    if (statement->kind == STMT_CALL && !places.pinned && p->path_rule)
        add_place(&places, p->path_rule);
    if (places.unclear)
        refuse_unclear(p, &places);
    else if (!places.pinned)
        return false;
    else if (places.other)
        plan_refuse(p, "Use a statement for each schema.",
                    "%s of what is in schema \"%s\" on shard %s and in schema \"%s\" on shard %s "
                    "is not supported yet",
                    statement->tag, places.pinned->schema,
                    shardmap_shard_name(p->map, places.pinned->shard), places.other->schema,
                    shardmap_shard_name(p->map, places.other->shard));
    else if (places.elsewhere)
        plan_refuse(p, "Use a statement for each schema, and names with their schemas.",
                    "%s of what is in schema \"%s\", on shard %s alone, together with \"%s\" is "
                    "not supported yet",
                    statement->tag, places.pinned->schema,
                    shardmap_shard_name(p->map, places.pinned->shard), places.elsewhere);
    else
        plan_direct(p, places.pinned->shard,
                    arena_printf(p->arena, "schema %s", places.pinned->schema));
    return true;
}

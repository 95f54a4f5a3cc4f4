/*
 * plan.c: where a statement goes.
 *
 *   one shard only?              -> direct
 *   hint or session: shard=...   -> direct
 *   kind of statement            -> session's own business / schema and utilities / query
 *   query: its tables            -> unsharded: shard 0; reference: any shard, written: all
 *          sharded: keys         -> all on one shard: direct
 *                   key=... said -> direct, unless the statement's own keys say otherwise
 *                   else         -> several shards, if the shape allows it; else refused
 */
#include <ctype.h>

#include "pgshunt/session_function.h"
#include "router/plan_internal.h"

/* ---- node class ---- */

/* Kinds that run on the primary but leave data alone. */
static bool changes_nothing(const struct statement *statement)
{
    switch (statement->kind) {
    case STMT_EMPTY:
    case STMT_BEGIN:
    case STMT_COMMIT:
    case STMT_ROLLBACK:
    case STMT_SAVEPOINT:
    case STMT_RELEASE:
    case STMT_ROLLBACK_TO:
    case STMT_SET:
    case STMT_SET_TRANSACTION:
    case STMT_RESET:
    case STMT_RESET_ALL:
    case STMT_SHOW:
    case STMT_PREPARE:
    case STMT_DEALLOCATE:
    case STMT_DISCARD:
    case STMT_LISTEN:
    case STMT_UNLISTEN:
    case STMT_NOTIFY:
    case STMT_FETCH:
    case STMT_CLOSE_CURSOR:
    case STMT_LOCK:
    case STMT_LOAD:
    case STMT_CHECKPOINT:
        return true;
    case STMT_EXPLAIN:
        return !statement->explain_analyze;
    case STMT_QUERY:
    case STMT_PREPARE_TRANSACTION:
    case STMT_COMMIT_PREPARED:
    case STMT_ROLLBACK_PREPARED:
    case STMT_EXECUTE:
    case STMT_DECLARE_CURSOR:
    case STMT_COPY_FROM:
    case STMT_COPY_TO:
    case STMT_TRUNCATE:
    case STMT_CREATE_TABLE:
    case STMT_CREATE_TABLE_AS:
    case STMT_DDL:
    case STMT_DDL_NO_TX:
    case STMT_CALL:
    case STMT_DO:
    case STMT_OTHER:
        break;
    }
    return false;
}

/* Why what may run on a replica does not: what is said about it, and its transaction. NULL: it does. */
static const char *kept_back(const struct route_session *session, enum route route, bool hinted)
{
    if (route == ROUTE_PRIMARY)
        return hinted ? "hint: primary" : "session: primary";
    if (!session)
        return NULL;
    if (session->force_primary)
        return session->force_primary;
    if (session->in_transaction && !session->read_only && session->on_primary)
        return "in a transaction";
    if (route == ROUTE_REPLICA || session->read_only)
        return NULL;
    if (session->in_transaction)
        return "in a transaction";
    return session->only_declared ? "not declared to be a read" : NULL;
}

/* `hints` NULL: there are none. */
static enum route said_route(const struct route_session *session, const struct hints *hints)
{
    if (hints && hints->wish.route != ROUTE_UNSAID)
        return hints->wish.route;
    return session ? session->route : ROUTE_AUTO;
}

void plan_settle_node(const struct route_session *session, const struct hints *hints,
                      struct plan *plan)
{
    bool hinted = hints && hints->wish.route != ROUTE_UNSAID;
    enum route route = said_route(session, hints);
    const char *why = kept_back(session, route, hinted);
    if (why)
        plan->node = NODE_CLASS_PRIMARY;
    else if (route == ROUTE_REPLICA)
        why = hinted ? "hint: replica" : "session: replica";
    if (why)
        plan->node_reason = why;
}

static void choose_node(const struct route_input *input, const struct hints *hints,
                        struct plan *plan)
{
    plan->write = plan->node == NODE_CLASS_PRIMARY && !changes_nothing(input->statement);
    if (plan->node == NODE_CLASS_PRIMARY && said_route(input->session, hints) == ROUTE_REPLICA)
        plan->node = router_classify_claimed(input->statement, input->schema, &plan->node_reason);
    if (plan->node == NODE_CLASS_REPLICA)
        plan_settle_node(input->session, hints, plan);
}

/* What comments ask of the replica goes to where it is chosen. */
static const struct route_wish *keep_wish(const struct hints *hints, struct arena *arena)
{
    if (!hints->wish.region && hints->wish.max_lag_us < 0)
        return NULL;
    struct route_wish *wish = arena_new(arena, struct route_wish);
    *wish = hints->wish;
    return wish;
}

/* ---- one shard ---- */

static const char *value_words(struct planner *p, const struct expr *value)
{
    while (value->kind == EXPR_CAST)
        value = value->args[0];
    if (value->kind == EXPR_PARAM && value->number >= 1 && value->number <= 9)
        return &"$1\0$2\0$3\0$4\0$5\0$6\0$7\0$8\0$9"[3 * (value->number - 1)];
    if (value->kind == EXPR_PARAM)
        return arena_printf(p->arena, "$%d", (int)value->number);
    if (value->kind != EXPR_CONST)
        return NULL;
    if (value->const_kind == CONST_STRING)
        return arena_printf(p->arena, "'%.60s'", value->name);
    return value->name;
}

/* What the first lookup that narrowed the rows has said. */
static const char *looked_up(const struct planner *p)
{
    for (int i = 0; i < p->ninstances; i++)
        if (p->instances[i].looked_up)
            return p->instances[i].looked_up;
    return "all rows on one shard";
}

/* "key id = 42". Copies by hand: every point query passes here. */
static const char *pin_reason(struct planner *p)
{
    const struct instance *instance = &p->instances[0];
    for (int i = 0; i < p->ninstances && !instance->pin; i++)
        instance = &p->instances[i];
    if (!instance->pin && instance->rule->class == TABLE_PINNED)
        return arena_printf(p->arena, "schema %s", instance->rule->schema);
    if (!instance->pin)
        return looked_up(p);
    const char *key = instance->rule->key, *value = value_words(p, instance->pin);
    if (!value)
        return "all key values on one shard";
    size_t key_len = strlen(key), value_len = strlen(value);
    char *out = arena_alloc(p->arena, key_len + value_len + 8);
    memcpy(out, "key ", 4);
    memcpy(out + 4, key, key_len);
    memcpy(out + 4 + key_len, " = ", 3);
    memcpy(out + 7 + key_len, value, value_len);
    return out;
}

static void refuse_unsharded(struct planner *p, const char *where)
{
    const char *first = shardmap_shard_name(p->map, 0);
    plan_refuse(p,
                arena_printf(p->arena,
                             "Make \"%s\" a reference table, or read it in a statement of its own.",
                             p->unsharded ? p->unsharded : p->catalog),
                "table \"%s\" is on shard %s alone and cannot be joined with rows of %s",
                p->unsharded ? p->unsharded : p->catalog, first, where);
}

/* Sends the statement to the shard as it is, if all it needs is there. */
static void go_direct(struct planner *p, const struct query *query, unsigned shard,
                      const char *reason)
{
    if (p->unsharded && shard != 0) {
        refuse_unsharded(p, arena_printf(p->arena, "shard %s", shardmap_shard_name(p->map, shard)));
        return;
    }
    if (p->writes_sharded && !plan_keeps_key(p, query, (int)shard))
        return;
    plan_direct(p, shard, reason);
}

/* ---- said by a hint ---- */

static const char *said_key(const struct planner *p)
{
    const struct route_session *session = p->input->session;
    return p->hints->key ? p->hints->key : session ? session->key : NULL;
}

static bool hint_shard(struct planner *p, const struct keyspace *keyspace, const char *key,
                       unsigned *shard)
{
    bool held = false;
    p->keyed = true;
    if (keyspace && keyfind_is_foreign(p, keyspace, key, strlen(key))) {
        plan_refuse(p, KEYFIND_ENCODING_HINT,
                    "pgshunt.key is not plain ASCII, and client_encoding is not UTF8");
        return false;
    }
    if (keyspace && keyfind_hint(p->map, keyspace, key, shard, &held)) {
        p->key_is_held = held;
        return true;
    }
    plan_refuse_state(p, "22P02", "Give the key as text, in the type of the keyspace's key.",
                      keyspace && keyspace->map == MAP_LIST
                          ? "pgshunt.key \"%.60s\" is in no list%s%s"
                          : "pgshunt.key \"%.60s\" is not a value of the shard key%s%s",
                      key, keyspace ? " of keyspace " : "", keyspace ? keyspace->name : "");
    return false;
}

/* A said key counts where the statement's own keys leave it open; they are right where they speak. */
static bool said_key_fits(const struct planner *p, unsigned shard)
{
    for (int i = 0; i < p->ninstances; i++) {
        const struct shard_set *set = &p->instances[i].set;
        if (set->kind == SHARDS_SOME || (set->kind == SHARDS_ONE && set->one != shard))
            return false;
    }
    return true;
}

/* True: the plan is made (or refused). */
static bool use_said_key(struct planner *p, const struct query *query)
{
    const char *key = said_key(p);
    unsigned shard;
    if (!key || plan_pinned(p))
        return false;
    if (!hint_shard(p, p->instances[0].rule->keyspace, key, &shard))
        return true;
    if (!said_key_fits(p, shard)) {
        p->keyed = false;
        return false;
    }
    plan_note_said(p, p->key_is_held);
    p->said_not_held = true;
    go_direct(p, query, shard, arena_printf(p->arena, "pgshunt.key = %.60s", key));
    plan_hide_direct(p);
    return true;
}

bool plan_said_key(struct planner *p, unsigned *shard)
{
    const char *key = said_key(p);
    if (!key || !hint_shard(p, shardmap_keyspace(p->map, 0), key, shard))
        return false;
    plan_note_said(p, p->key_is_held);
    return true;
}

static const char *shard_list(struct planner *p)
{
    const char *list = "";
    for (unsigned i = 0; i < shardmap_shards(p->map) && i < 20; i++)
        list =
            arena_printf(p->arena, "%s%s%s", list, i ? ", " : "", shardmap_shard_name(p->map, i));
    return list;
}

static bool is_utility(const struct statement *statement)
{
    return statement->kind == STMT_DDL || statement->kind == STMT_DDL_NO_TX ||
           statement->kind == STMT_CREATE_TABLE || statement->kind == STMT_TRUNCATE;
}

static void use_said_shard(struct planner *p, const char *name)
{
    int shard = shardmap_shard_by_name(p->map, name);
    struct shard_set all = {.kind = SHARDS_ALL};
    if (shard >= 0) {
        plan_direct(p, (unsigned)shard, "shard named by hint or session");
        plan_hide_named(p);
    } else if (same_name(name, "all") && is_utility(p->statement)) {
        plan_scatter(p, SCATTER_UTILITY, &all, NULL);
        p->plan->reason = "all shards named by hint or session";
    } else {
        plan_refuse_state(p, "22023",
                          arena_printf(p->arena,
                                       "The shards are: %s. \"all\" is for schema changes.",
                                       shard_list(p)),
                          "there is no shard \"%.60s\"", name);
    }
}

/* ---- queries ---- */

static bool calls_advisory_lock(const struct statement *statement)
{
    for (int i = 0; i < statement->nfunctions; i++)
        if (strncmp(statement->functions[i].name, "pg_advisory", 11) == 0 ||
            strncmp(statement->functions[i].name, "pg_try_advisory", 15) == 0)
            return true;
    return false;
}

static bool calls(const struct statement *statement, enum session_function kind)
{
    for (int i = 0; i < statement->nfunctions && statement->facts & FACT_SESSION; i++)
        if (session_function(statement->functions[i].name) == kind)
            return true;
    return false;
}

/* Numbers that are not asked for a row come from one shard, so that they are unique, interleaved or not.
 * What a session was given last is known where that was. */
static bool plan_sequence(struct planner *p)
{
    const struct route_session *session = p->input->session;
    int last = session ? session->sequence_shard - 1 : -1;
    if (calls(p->statement, SESSION_SEQUENCE))
        plan_direct(p, 0, "sequences: first shard");
    else if (last >= 0 && (unsigned)last < shardmap_shards(p->map) &&
             calls(p->statement, SESSION_CURRVAL))
        plan_direct(p, (unsigned)last, "the shard whose sequence the session has used");
    else
        return false;
    return true;
}

/* No table at all: calls may have effects, so they go where the transaction is. Advisory locks
 * exclude each other only within one server. */
static void plan_tableless(struct planner *p)
{
    bool lock = calls_advisory_lock(p->statement);
    if (!lock && plan_sequence(p))
        return;
    plan_direct(p, lock ? 0 : plan_home(p), lock ? "advisory locks: first shard" : "no tables");
    p->plan->any_shard = !p->plan->write && !lock;
}

void plan_refuse_view(struct planner *p)
{
    plan_refuse(p,
                view_changed(p, p->view)
                    ? "It was made or changed in this transaction: commit first."
                    : "Query the tables themselves, or name the shard where the view is right with "
                      "a comment: /* pgshunt: shard=... */",
                "\"%s\" is a view of tables on several shards, or of what is not known: one shard "
                "may hold only a part",
                p->view);
}

static void plan_reference(struct planner *p)
{
    const char *other = p->unsharded ? p->unsharded : p->catalog;
    if (other) {
        plan_refuse(
            p, "Read the other table first, and give its values as literals or parameters.",
            "reference table \"%s\" is written on every shard, but \"%s\" is not alike on all",
            p->writes_reference->name, other);
        return;
    }
    plan_reference_write(p);
}

static void plan_without_sharded(struct planner *p)
{
    unsigned shard;
    if (p->view) {
        plan_refuse_view(p);
    } else if (p->writes_reference) {
        plan_reference(p);
    } else if (p->unsharded) {
        plan_direct(p, 0, "unsharded table");
    } else if (p->hints->key) {
        if (plan_said_key(p, &shard))
            plan_direct(p, shard, arena_printf(p->arena, "pgshunt.key = %.60s", p->hints->key));
    } else if (p->catalog) {
        plan_direct(p, plan_home(p), "catalog");
    } else if (p->reference) {
        plan_direct(p, plan_home(p), "reference tables only");
        p->plan->any_shard = true;
    } else {
        plan_tableless(p);
    }
}

static void plan_several(struct planner *p, const struct query *query)
{
    if (p->unsharded || p->catalog) {
        refuse_unsharded(p, "several shards");
        return;
    }
    if (p->statement->facts & FACT_MODIFYING_CTE) {
        plan_refuse_shape(p, "A change inside WITH that is not on one shard");
        return;
    }
    if (plan_refuse_pinned_write(p, query))
        return;
    switch (query->kind) {
    case QUERY_SELECT:
        plan_select(p, query);
        break;
    case QUERY_INSERT:
        plan_insert(p, query);
        break;
    case QUERY_UPDATE:
    case QUERY_DELETE:
    case QUERY_MERGE:
        plan_write(p, query);
        break;
    case QUERY_SETOP:
        plan_refuse_shape(p, "%s over several shards", query->setop);
        break;
    case QUERY_VALUES:
        plan_refuse_shape(p, "VALUES with a subquery over several shards");
        break;
    }
}

static bool is_looked_up(const struct planner *p)
{
    for (int i = 0; i < p->ninstances; i++)
        if (p->instances[i].looked_up)
            return true;
    return false;
}

/* One shard has all rows, or all that matter. */
static void plan_on_one(struct planner *p, const struct query *query, unsigned shard)
{
    go_direct(p, query, shard, pin_reason(p));
    if (is_looked_up(p)) /* what the shards have said may be of rows that are not theirs */
        plan_hide_direct(p);
}

/* Before the first bucket has moved to a second shard, or after the last has left it. */
static void use_sole_owner(const struct planner *p, struct shard_set *reach)
{
    enum statement_kind kind = p->input->statement->kind;
    if (reach->kind != SHARDS_ALL || p->views->depth ||
        (kind != STMT_QUERY && kind != STMT_EXPLAIN))
        return;
    int owner = plan_sole_owner(p);
    if (owner >= 0)
        *reach = (struct shard_set){.kind = SHARDS_ONE, .one = (unsigned)owner};
}

static void plan_sharded(struct planner *p, const struct query *query)
{
    if (p->view) {
        plan_refuse_view(p);
        return;
    }
    if (p->writes_reference) {
        plan_refuse(
            p, "Use a statement for each table.",
            "changing reference table \"%s\" with rows of a sharded table is not supported yet",
            p->writes_reference->name);
        return;
    }
    if (p->failed) {
        if (use_said_key(p, query))
            return;
        plan_refuse_failed(p);
        return;
    }
    if (p->pending) {
        plan_direct(p, plan_home(p), "shard key parameter not bound yet");
        p->plan->needs_params = true;
        return;
    }
    struct shard_set reach = plan_reach(p);
    p->by_key = reach.kind == SHARDS_ONE;
    use_sole_owner(p, &reach);
    if (reach.kind != SHARDS_ONE && reach.kind != SHARDS_NONE) {
        p->plan->wants = p->wants;
        p->plan->nwants = p->nwants;
        p->plan->shows_value = p->nwants && lookup_shows_value(p, query);
    }
    if (reach.kind == SHARDS_ONE)
        plan_on_one(p, query, reach.one);
    else if (reach.kind == SHARDS_NONE)
        go_direct(p, query, p->unsharded ? 0 : plan_home(p), "no row can match");
    else if (!use_said_key(p, query))
        plan_several(p, query);
}

/* A sharded table named where this planner does not look (inside ON CONFLICT ... WHERE and the like). */
static const char *overlooked(const struct planner *p)
{
    const struct statement *statement = p->statement;
    int met = p->ntables + ((statement->facts & FACT_INTO) != 0);
    if (met >= statement->nrelations || !(statement->facts & FACT_SUBQUERY))
        return NULL;
    for (int i = 0; i < statement->nrelations; i++) {
        const struct relation_ref *ref = &statement->relations[i];
        if (plan_rule(p, ref->schema, ref->name)->class != TABLE_UNSHARDED)
            return ref->name;
    }
    return NULL;
}

static void refuse_complex(struct planner *p)
{
    plan_refuse_state(p, "54001", plan_key_hint(p),
                      "the statement is too complex to be planned for several shards: %d mentions "
                      "of sharded tables, %d query levels and %d tables in one FROM are the most",
                      PLAN_MAX_INSTANCES, PLAN_MAX_LEVELS, PLAN_MAX_FROM);
}

/* True: planned, or refused for good. */
static bool open_views(struct planner *p)
{
    if (!p->nreplace)
        return false;
    if (!p->view && !p->views->depth && view_plan(p))
        return true;
    if (!p->view)
        p->view = p->replace[0]->relation->name;
    plan_refuse_view(p);
    return true;
}

void plan_in_gears(struct planner *p, const struct query *query)
{
    plan_scan(p, query);
    if (open_views(p))
        return;
    const char *hidden = overlooked(p);
    bool complex = p->too_many || *p->work > PLAN_MAX_WORK;
    if (hidden || (complex && p->ninstances)) {
        if (p->ninstances && use_said_key(p, query))
            return;
        plan_note_names(p);
        if (hidden)
            plan_refuse_shape(p, "A subquery over table \"%s\" in such a place", hidden);
        else
            refuse_complex(p);
        return;
    }
    if (p->ninstances)
        plan_sharded(p, query);
    else
        plan_without_sharded(p);
    plan_note_held(p);
}

/* To ask all shards costs what a read of all of them does: that pays for values that are remembered then, for
 * changes, and for what would be gathered. */
static void forget_idle_wants(struct plan *plan)
{
    bool pays = plan->write || plan->kind != PLAN_SCATTER || plan->mode != SCATTER_ROWS;
    for (int i = 0; i < plan->nwants; i++)
        pays |= plan->wants[i].lookup->unique;
    if (!pays)
        plan->nwants = 0;
}

void plan_query(struct planner *p, const struct query *query)
{
    plan_in_gears(p, query);
    plan_hide_ghosts(p);
    if (p->plan->kind == PLAN_REFUSE)
        plan_with(p, query);
    if (p->plan->kind == PLAN_REFUSE && !p->nreplace)
        plan_gather(p, query);
    if (p->plan->kind == PLAN_REFUSE)
        plan_change(p, query);
    if (p->plan->kind == PLAN_REFUSE)
        plan_draw(p, query);
    plan_hide_ghosts(p);
    forget_idle_wants(p->plan);
}

/* ---- what the grammar does not understand ---- */

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (c & 0x80);
}

/* A plain scan for names of tables that are not on one shard alone; quotes do not matter. */
static const char *names_table(struct planner *p, const char *text)
{
    const struct table_rule *path_rule = p->path_rule;
    const char *found = NULL;
    p->path_rule = NULL; /* not every word is a table of that schema */
    while (*text) {
        size_t len = 0;
        while (is_word(text[len]))
            len++;
        if (!len) {
            text++;
            continue;
        }
        char *exact = arena_strndup(p->arena, text, len),
             *folded = arena_strndup(p->arena, text, len);
        for (size_t i = 0; i < len; i++)
            folded[i] = (char)tolower((unsigned char)folded[i]);
        if (plan_rule(p, NULL, exact)->class != TABLE_UNSHARDED ||
            plan_rule(p, NULL, folded)->class != TABLE_UNSHARDED ||
            shardmap_schema(p->map, exact) || shardmap_schema(p->map, folded)) {
            found = exact;
            break;
        }
        text += len;
    }
    p->path_rule = path_rule;
    return found;
}

/* The grammar's own words are what a server of that version would answer. */
static void refuse_unknown(struct planner *p, const char *table)
{
    const char *hint = arena_printf(
        p->arena,
        "\"%.60s\" is not on one shard alone. If the statement is right, but newer than "
        "PostgreSQL 15, say where it goes with a comment: /* pgshunt: shard=... */",
        table);
    if (!p->statement->syntax_message) {
        plan_refuse(p, hint, "this statement is not understood");
        return;
    }
    plan_refuse_state(p, "42601", hint, "%s", p->statement->syntax_message);
    p->plan->error.position = p->statement->syntax_position;
}

static void plan_unknown(struct planner *p)
{
    p->plan->node = NODE_CLASS_PRIMARY;
    p->plan->node_reason = "not understood";
    const char *table = names_table(p, p->statement->text);
    if (table)
        refuse_unknown(p, table);
    else
        plan_direct(p, p->path_rule ? plan_home(p) : 0, "not understood: the server judges");
}

/* ---- entry ---- */

/* Kinds that read or change rows by a query inside. */
static bool runs_query(enum statement_kind kind)
{
    return kind == STMT_QUERY || kind == STMT_EXPLAIN || kind == STMT_DECLARE_CURSOR ||
           kind == STMT_COPY_TO || kind == STMT_COPY_FROM || kind == STMT_CREATE_TABLE_AS;
}

/* The tables stay as they are, they are used up to their counts. */
void plan_init(struct planner *p, const struct route_input *input, const struct hints *hints,
               struct arena *arena, struct plan *plan)
{
    p->input = input;
    p->hints = hints;
    p->map = input->map;
    p->schema = input->schema;
    p->statement = input->statement;
    p->arena = arena;
    p->plan = plan;
    p->ninstances = p->nedges = p->nlevels = p->ntables = p->nreplace = p->rounds = 0;
    p->written = NULL;
    p->opened = NULL;
    p->nopened = 0;
    p->reference = p->unsharded = p->catalog = p->view = NULL;
    p->writes_sharded = p->writes_reference = p->writes_unsharded = NULL;
    p->pending = p->too_many = p->has_ctes = p->keyed = p->moves_key = false;
    p->key_is_held = p->said_not_held = false;
    p->may_wait =
        !(input->session && input->session->schema_is_fresh) && runs_query(input->statement->kind);
    p->unsafe_join = NULL;
    p->wants = NULL;
    p->nwants = 0;
    p->identify = NULL;
    p->wants_many = p->wants_loose = false;
    p->failed = NULL;
    p->by_key = false;
    p->values.read = p->values.noted = p->values.count = 0;
    p->values.several = false;
    plan_read_path(p);
    /* A table made a moment ago, in that schema or in another? */
    p->may_wait |= p->path_rule && !(input->session && input->session->schema_is_fresh);
}

bool plan_inner_statement(const struct planner *p, const struct statement *statement,
                          const struct params *params, struct plan *plan, bool gather,
                          const struct schema_relation *identify)
{
    static const struct hints no_hints;
    struct planner inner;
    struct route_input input = *p->input;
    struct route_session session = {.transaction_shard = -1};
    if (p->input->session)
        session = *p->input->session;
    session.key = session.shard = NULL;
    input.statement = statement;
    input.params = params;
    input.session = &session;
    inner.work = p->work;
    inner.views = p->views;
    inner.touches_held = p->touches_held;
    plan_init(&inner, &input, &no_hints, p->arena, plan);
    inner.identify = identify;
    plan_in_gears(&inner, statement->query);
    plan_hide_ghosts(&inner);
    /* Of several, some would be made after the rows are put where one Postgres has them before, or the other way. */
    if (plan->kind == PLAN_REFUSE && statement->query->nctes == 1)
        plan_with(&inner, statement->query);
    if (gather && plan->kind != PLAN_REFUSE)
        plan_refuse_shape(&inner, "A query whose rows are inserted, over several shards");
    if (plan->kind == PLAN_REFUSE && !inner.nreplace)
        plan_gather(&inner, statement->query);
    return inner.ninstances > 0;
}

/* What defaults were to give is there: the statement that has it is planned instead. False: it is not. */
static bool plan_filled(struct planner *p, struct route_input *input, struct arena *arena)
{
    const struct statement *filled = plan_fill(p, p->statement->query);
    if (!filled)
        return false;
    *input = *p->input;
    input->statement = filled;
    input->drawn = NULL;
    plan_init(p, input, p->hints, arena, p->plan);
    plan_query(p, filled->query);
    plan_send_filled(p, filled->query);
    return true;
}

void router_plan(const struct route_input *input, struct arena *arena, struct plan *plan)
{
    const struct statement *statement = input->statement;
    struct hints hints;
    *plan = (struct plan){.kind = PLAN_DIRECT};
    if (input->made)
        input->made->nvalues = 0;
    if (!plan_take_hints(statement, &hints, arena, plan))
        return;
    plan->node = router_classify(statement, input->schema, &plan->node_reason);
    const struct plan classified = {.node = plan->node, .node_reason = plan->node_reason};
    choose_node(input, &hints, plan);
    plan->wish = keep_wish(&hints, arena);
    plan->no_transaction = statement->kind == STMT_DDL_NO_TX;
    if (!shardmap_is_sharded(input->map)) {
        plan->reason = "one shard";
        return;
    }
    struct planner p;
    struct route_input filled;
    long work = 0;
    struct views views = {NULL, 0};
    bool touches_held = false;
    p.work = &work;
    p.views = &views;
    p.touches_held = shardmap_holds(input->map) ? &touches_held : NULL;
    plan_init(&p, input, &hints, arena, plan);
    const char *shard = hints.shard ? hints.shard : input->session ? input->session->shard : NULL;
    if (shard && *shard)
        use_said_shard(&p, shard);
    else if (statement->syntax_error)
        plan_unknown(&p);
    else if (input->drawn && plan_filled(&p, &filled, arena))
        ;
    else if (statement->kind == STMT_QUERY && statement->query)
        plan_query(&p, statement->query);
    else
        plan_utility(&p);
    plan_require_key(&p);
    if (p.touches_held)
        plan_settle_held(&p, shard && *shard);
    if (input->made && p.input == input)
        template_make(&p, classified.node == NODE_CLASS_REPLICA, classified.node_reason,
                      input->made);
}

/* ---- several statements in one message ---- */

static void refuse_list(struct plan *plan, const char *message, const char *hint)
{
    *plan = (struct plan){.kind = PLAN_REFUSE, .reason = message};
    plan->error = (struct pg_error){.sqlstate = "0A000", .message = message, .hint = hint};
}

/* Takes one statement's plan into that of the whole message. False: they do not go together. */
static bool join_plan(struct plan *all, const struct plan *one, bool *placed, struct arena *arena)
{
    const char *hint = "Send the statements one by one.";
    if (one->kind == PLAN_REFUSE) {
        *all = *one;
        return false;
    }
    if (one->kind == PLAN_SCATTER) {
        refuse_list(all,
                    arena_printf(arena,
                                 "several statements in one message, one of which needs several "
                                 "shards, are not supported yet"),
                    hint);
        return false;
    }
    if (!one->any_shard && *placed && one->shard != all->shard) {
        refuse_list(all, "statements for different shards in one message are not supported yet",
                    hint);
        return false;
    }
    if (!one->any_shard && !*placed) {
        *placed = true;
        all->shard = one->shard;
        all->reason = one->reason;
    }
    all->any_shard &= one->any_shard;
    all->write |= one->write;
    all->no_transaction |= one->no_transaction;
    all->needs_params |= one->needs_params;
    all->touches_held |= one->touches_held;
    if (one->wish)
        all->wish = one->wish;
    if (one->node == NODE_CLASS_PRIMARY && all->node != NODE_CLASS_PRIMARY) {
        all->node = NODE_CLASS_PRIMARY;
        all->node_reason = one->node_reason;
    }
    return true;
}

void router_plan_list(const struct statement_list *list, const struct route_input *input,
                      struct arena *arena, struct plan *plan)
{
    struct route_input one = *input;
    bool placed = false;
    if (list->count == 1) {
        one.statement = list->items[0];
        router_plan(&one, arena, plan);
        return;
    }
    one.lookups = NULL; /* the first statements may change where the rows of the last are */
    *plan = (struct plan){.kind = PLAN_DIRECT, .node = NODE_CLASS_REPLICA, .any_shard = true};
    plan->reason = list->count ? NULL : "empty";
    for (int i = 0; i < list->count; i++) {
        struct plan next;
        one.statement = list->items[i];
        router_plan(&one, arena, &next);
        if (!plan->reason) {
            plan->reason = next.reason;
            plan->node_reason = next.node_reason;
            plan->shard = next.shard;
        }
        enum schema_need needs_schema =
            next.needs_schema > plan->needs_schema ? next.needs_schema : plan->needs_schema;
        bool joined = join_plan(plan, &next, &placed, arena);
        plan->needs_schema = needs_schema;
        if (!joined)
            return;
    }
}

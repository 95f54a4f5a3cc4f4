/* statement.c: what statements mean to the session: transactions, settings, pins; and the statements
 * the session answers itself. */
#include "proxy/session.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "proxy/monitor.h"

/* ---- transactions ---- */

static struct savepoint *find_savepoint(struct transaction *tx, const char *name)
{
    for (int i = tx->nsavepoints - 1; i >= 0; i--)
        if (strcmp(tx->savepoints[i].name, name) == 0)
            return &tx->savepoints[i];
    return NULL;
}

static void add_savepoint(struct transaction *tx, const char *name)
{
    size_t size = sizeof *tx->savepoints * (size_t)(tx->nsavepoints + 1);
    tx->savepoints = mem_realloc(tx->savepoints, size);
    tx->savepoints[tx->nsavepoints++] =
        (struct savepoint){mem_strdup(name), tx->settings.count, tx->locals.count};
}

static void drop_savepoints(struct transaction *tx, int keep)
{
    while (tx->nsavepoints > keep)
        free(tx->savepoints[--tx->nsavepoints].name);
}

static void release_savepoint(struct transaction *tx, const char *name)
{
    struct savepoint *savepoint = find_savepoint(tx, name);
    if (savepoint)
        drop_savepoints(tx, (int)(savepoint - tx->savepoints));
}

static void rollback_to(struct transaction *tx, const char *name)
{
    struct savepoint *savepoint = find_savepoint(tx, name);
    if (!savepoint)
        return;
    guc_pending_truncate(&tx->settings, savepoint->pending);
    guc_pending_truncate(&tx->locals, savepoint->locals);
    drop_savepoints(tx, (int)(savepoint - tx->savepoints) + 1);
    tx->state = TX_OPEN;
}

static char *begin_sql(const struct statement *statement)
{
    const char *options = statement && statement->begin_options ? statement->begin_options : "";
    struct buffer sql = {0};
    buffer_printf(&sql, *options ? "BEGIN %s" : "BEGIN%s", options);
    char *copy = mem_strdup(buffer_head(&sql));
    buffer_release(&sql);
    return copy;
}

static bool read_only_by_default(const struct client *client)
{
    const char *value = guc_set_get(&client->guc, "default_transaction_read_only");
    return value && strstr(value, "on") != NULL;
}

void transaction_begin(struct client *client, const struct statement *statement)
{
    struct transaction *tx = mem_alloc(sizeof *tx);
    tx->state = TX_DEFERRED;
    tx->begin_sql = begin_sql(statement);
    tx->read_only = statement && !statement->tx_read_write &&
                    (statement->tx_read_only || read_only_by_default(client));
    client->tx = tx;
}

static void restore_route(struct client *client)
{
    struct transaction *tx = client->tx;
    if (!tx->local_route)
        return;
    free(client->route_key);
    free(client->route_shard);
    client->route_key = tx->outer_key;
    client->route_shard = tx->outer_shard;
}

static void announce_schema_change(struct client *client)
{
    topology_schema_changes(client->database);
    monitor_schema_changed(client->worker->daemon->monitor, client->database);
}

/* Every server of the transaction counts. */
static void note_where_it_wrote(struct client *client)
{
    bool noted = false;
    for (int i = 0; i < client->nparticipants; i++) {
        if (!client->participants[i]->begun)
            continue;
        session_wrote(client, client->participants[i]);
        noted = true;
    }
    if (!noted)
        session_wrote(client, NULL);
}

void transaction_end(struct client *client, bool committed)
{
    struct transaction *tx = client->tx;
    if (!tx)
        return;
    if (committed) {
        statement_apply_settings(client, &tx->settings, &client->guc);
        if (tx->wrote)
            note_where_it_wrote(client);
        if (tx->changed_schema)
            announce_schema_change(client);
    }
    for (int i = 0; i < client->nparticipants; i++) {
        struct server *server = client->participants[i];
        if (server->begun && committed)
            guc_pending_apply(&tx->settings, &server->guc);
        server->begun = false;
    }
    restore_route(client);
    guc_pending_free(&tx->settings);
    guc_pending_free(&tx->locals);
    drop_savepoints(tx, 0);
    free(tx->savepoints);
    free(tx->begin_sql);
    free(tx);
    client->tx = NULL;
}

void transaction_chain(struct client *client, bool committed)
{
    char *begin_sql = mem_strdup(client->tx->begin_sql);
    bool read_only = client->tx->read_only;
    transaction_end(client, committed);
    transaction_begin(client, NULL);
    free(client->tx->begin_sql);
    client->tx->begin_sql = begin_sql;
    client->tx->read_only = read_only;
    for (int i = 0; i < client->nparticipants; i++)
        client->participants[i]->begun = client->participants[i]->tx_status == 'T';
}

/* ---- settings made by statements ---- */

void statement_apply_settings(const struct client *client, const struct guc_pending *settings,
                              struct guc_set *set)
{
    for (int i = 0; i < settings->count; i++) {
        const struct guc *item = &settings->items[i];
        if (!item->name)
            guc_set_copy(set, &client->startup);
        else
            guc_set_put(set, item->name,
                        item->value ? item->value : guc_set_get(&client->startup, item->name));
    }
}

void statement_settle(struct client *client, struct server *server, bool committed)
{
    struct guc_pending *settings = &client->request.settings;
    if (committed && settings->count) {
        guc_pending_apply(settings, &server->guc);
        statement_apply_settings(client, settings, &client->guc);
    }
    guc_pending_free(settings);
}

/* ---- pgshunt.* settings ---- */

/* 'text' or word, as SQL had it, to plain text. */
static char *plain_value(const char *sql)
{
    if (!sql)
        return NULL;
    size_t len = strlen(sql);
    if (len < 2 || sql[0] != '\'')
        return mem_strdup(sql);
    char *out = mem_alloc(len), *to = out;
    for (const char *at = sql + 1; at < sql + len - 1; at++) {
        *to++ = *at;
        if (*at == '\'')
            at++;
    }
    return out;
}

static char **own_setting(struct client *client, const char *name)
{
    if (strcmp(name, "pgshunt.key") == 0)
        return &client->route_key;
    if (strcmp(name, "pgshunt.shard") == 0)
        return &client->route_shard;
    return NULL;
}

bool statement_is_own(const struct statement *statement)
{
    bool setting = statement->kind == STMT_SET || statement->kind == STMT_RESET ||
                   statement->kind == STMT_SHOW;
    return setting && statement->name && strncmp(statement->name, "pgshunt.", 8) == 0;
}

static enum local_outcome unknown_setting(struct client *client, const char *name,
                                          struct pg_error *error)
{
    *error = (struct pg_error){
        .sqlstate = "42704",
        .message = arena_printf(client->request.arena,
                                "unrecognized configuration parameter \"%s\"", name),
        .hint = "pgshunt knows pgshunt.key, pgshunt.shard and pgshunt.version."};
    return LOCAL_REFUSED;
}

static void warn(struct buffer *answer, const char *sqlstate, const char *message)
{
    struct pg_error warning = {.severity = "WARNING", .sqlstate = sqlstate, .message = message};
    wire_put_notice(answer, &warning);
}

/* The first SET LOCAL of a transaction remembers what the session had said. */
static void keep_outer_route(struct client *client)
{
    struct transaction *tx = client->tx;
    if (tx->local_route)
        return;
    tx->local_route = true;
    tx->outer_key = client->route_key ? mem_strdup(client->route_key) : NULL;
    tx->outer_shard = client->route_shard ? mem_strdup(client->route_shard) : NULL;
}

static enum local_outcome set_own(struct client *client, const struct statement *statement,
                                  struct buffer *answer, struct pg_error *error)
{
    char **setting = own_setting(client, statement->name);
    if (!setting)
        return unknown_setting(client, statement->name, error);
    char *value = statement->kind == STMT_SET ? plain_value(statement->value) : NULL;
    if (value && setting == &client->route_shard &&
        shardmap_shard_by_name(client->database->map, value) < 0) {
        *error = (struct pg_error){
            .sqlstate = "22023",
            .message = arena_printf(client->request.arena, "there is no shard \"%s\"", value),
            .hint = "SHOW SHARDS on the admin console lists them."};
        free(value);
        return LOCAL_REFUSED;
    }
    if (statement->is_local && !client->tx) {
        warn(answer, "25P01", "SET LOCAL can only be used in transaction blocks");
        free(value);
    } else {
        if (statement->is_local)
            keep_outer_route(client);
        free(*setting);
        *setting = value;
    }
    wire_put_complete(answer, statement->kind == STMT_SET ? "SET" : "RESET");
    return LOCAL_DONE;
}

static enum local_outcome show_own(struct client *client, const struct statement *statement,
                                   struct buffer *answer, struct pg_error *error)
{
    struct wire_column column = {statement->name, 25};
    char **setting = own_setting(client, statement->name);
    const char *value = setting && *setting ? *setting : "";
    if (strcmp(statement->name, "pgshunt.version") == 0)
        value = PGSHUNT_VERSION;
    else if (!setting)
        return unknown_setting(client, statement->name, error);
    wire_put_row_description(answer, &column, 1);
    wire_put_text_row(answer, &value, 1);
    wire_put_complete(answer, "SHOW");
    return LOCAL_DONE;
}

/* ---- statements without a server ---- */

static enum local_outcome done(struct buffer *answer, const char *tag)
{
    wire_put_complete(answer, tag);
    return LOCAL_DONE;
}

static const char *begin_tag(const struct statement *statement)
{
    const char *word = statement->text + strspn(statement->text, " \t\r\n");
    return strncasecmp(word, "START", 5) == 0 ? "START TRANSACTION" : "BEGIN";
}

static enum local_outcome begin(struct client *client, const struct statement *statement,
                                struct buffer *answer)
{
    if (client->tx && client->tx->implicit) {
        client->tx->implicit = false; /* the pipeline's transaction becomes a block */
        return done(answer, begin_tag(statement));
    }
    if (client->tx && client->nparticipants)
        return LOCAL_NO; /* the server warns, as it should */
    if (client->tx) {
        warn(answer, "25001", "there is already a transaction in progress");
        return done(answer, begin_tag(statement));
    }
    transaction_begin(client, statement);
    return done(answer, begin_tag(statement));
}

static bool unbegun(const struct client *client)
{
    for (int i = 0; i < client->nparticipants; i++)
        if (client->participants[i]->begun)
            return false;
    return client->tx != NULL;
}

/* The end of a transaction no server knows of. */
static enum local_outcome end_unbegun(struct client *client, const struct statement *statement,
                                      struct buffer *answer)
{
    bool commit = statement->kind == STMT_COMMIT && client->tx->state != TX_FAILED;
    if (statement->chain)
        transaction_chain(client, commit);
    else
        transaction_end(client, commit);
    return done(answer, commit ? "COMMIT" : "ROLLBACK");
}

static enum local_outcome no_such_savepoint(struct client *client, const char *name,
                                            struct pg_error *error)
{
    *error = (struct pg_error){
        .sqlstate = "3B001",
        .message = arena_printf(client->request.arena, "savepoint \"%s\" does not exist", name)};
    return LOCAL_REFUSED;
}

static enum local_outcome savepoint_unbegun(struct client *client,
                                            const struct statement *statement,
                                            struct buffer *answer, struct pg_error *error)
{
    struct transaction *tx = client->tx;
    if (statement->kind == STMT_SAVEPOINT) {
        add_savepoint(tx, statement->name);
        return done(answer, "SAVEPOINT");
    }
    if (!find_savepoint(tx, statement->name))
        return no_such_savepoint(client, statement->name, error);
    if (statement->kind == STMT_RELEASE) {
        release_savepoint(tx, statement->name);
        return done(answer, "RELEASE");
    }
    rollback_to(tx, statement->name);
    tx->state = TX_DEFERRED;
    return done(answer, "ROLLBACK");
}

/* SET TRANSACTION before the first statement joins the BEGIN that is still to be sent. */
static enum local_outcome set_transaction(struct client *client, const struct statement *statement,
                                          struct buffer *answer)
{
    struct transaction *tx = client->tx;
    struct buffer sql = {0};
    if (statement->session_characteristics)
        return LOCAL_NO;
    buffer_printf(&sql, "%s; %s", tx->begin_sql, statement->text);
    free(tx->begin_sql);
    tx->begin_sql = mem_strdup(buffer_head(&sql));
    buffer_release(&sql);
    if (statement->tx_read_only || statement->tx_read_write)
        tx->read_only = statement->tx_read_only;
    return done(answer, "SET");
}

static enum local_outcome failed_transaction(struct pg_error *error)
{
    *error = (struct pg_error){
        .sqlstate = "25P02",
        .message =
            "current transaction is aborted, commands ignored until end of transaction block"};
    return LOCAL_REFUSED;
}

static bool server_knows_failure(const struct client *client)
{
    return client->nparticipants == 1 && client->participants[0]->begun &&
           client->participants[0]->tx_status == 'E';
}

/* Before the first server of a transaction is there, its statements are ours to answer. */
static enum local_outcome unbegun_statement(struct client *client,
                                            const struct statement *statement,
                                            struct buffer *answer, struct pg_error *error)
{
    bool failed = client->tx->state == TX_FAILED;
    switch ((int)statement->kind) {
    case STMT_COMMIT:
    case STMT_ROLLBACK:
        return end_unbegun(client, statement, answer);
    case STMT_ROLLBACK_TO:
        return savepoint_unbegun(client, statement, answer, error);
    case STMT_SAVEPOINT:
    case STMT_RELEASE:
        return failed ? failed_transaction(error)
                      : savepoint_unbegun(client, statement, answer, error);
    case STMT_SET_TRANSACTION:
        return failed ? failed_transaction(error) : set_transaction(client, statement, answer);
    default:
        return failed ? failed_transaction(error) : LOCAL_NO;
    }
}

static bool ends_failure(enum statement_kind kind)
{
    return kind == STMT_COMMIT || kind == STMT_ROLLBACK || kind == STMT_ROLLBACK_TO;
}

enum local_outcome statement_local(struct client *client, const struct statement *statement,
                                   struct buffer *answer, struct pg_error *error)
{
    if (statement->kind == STMT_BEGIN && !(client->tx && client->tx->state == TX_FAILED))
        return begin(client, statement, answer);
    if (unbegun(client)) {
        enum local_outcome outcome = unbegun_statement(client, statement, answer, error);
        if (outcome != LOCAL_NO)
            return outcome;
    } else if (client->tx && client->tx->state == TX_FAILED && !server_knows_failure(client) &&
               !ends_failure(statement->kind)) {
        return failed_transaction(error);
    }
    if (statement->kind == STMT_DEALLOCATE && statement->name &&
        extended_deallocate(client, statement->name))
        return done(answer, "DEALLOCATE");
    if (!statement_is_own(statement))
        return LOCAL_NO;
    return statement->kind == STMT_SHOW ? show_own(client, statement, answer, error)
                                        : set_own(client, statement, answer, error);
}

/* ---- after a server completed a statement ---- */

/* It counts when its transaction commits: also outside a block there may be an error behind it, in the
 * same Query or pipeline. */
static void setting_changed(struct client *client, const char *name, const char *value)
{
    guc_pending_add(client->tx ? &client->tx->settings : &client->request.settings, name, value);
}

/* COMMIT or ROLLBACK carried out: what else is in the same message comes after it. */
static void ended(struct client *client, struct server *server, const char *tag)
{
    if (!client->tx) {
        statement_settle(client, server, strcmp(tag, "COMMIT") == 0);
    } else if (strcmp(tag, "ROLLBACK") == 0) {
        guc_pending_truncate(&client->tx->settings, 0);
        drop_savepoints(client->tx, 0);
        client->tx->wrote = client->tx->changed_schema = false;
    }
}

static void discarded(struct client *client, struct server *server, const char *tag)
{
    if (strcmp(tag, "DISCARD ALL") == 0) {
        setting_changed(client, NULL, NULL);
        server->pinned = false;
        client->pin_reason = NULL;
    }
    if (strcmp(tag, "DISCARD ALL") == 0 || strncmp(tag, "DEALLOCATE ALL", 14) == 0) {
        server_forget_prepared(server);
        extended_forget_all(client);
    }
}

static bool changes_schema(enum statement_kind kind)
{
    return kind == STMT_DDL || kind == STMT_DDL_NO_TX || kind == STMT_CREATE_TABLE ||
           kind == STMT_CREATE_TABLE_AS || kind == STMT_DO || kind == STMT_CALL;
}

static void wrote(struct client *client, struct server *server)
{
    server->wrote = true;
    if (client->tx)
        client->tx->wrote = true;
    else
        session_wrote(client, server);
}

void statement_pin(struct client *client, struct server *server, const char *reason)
{
    if (!server->pinned)
        log_event(LOG_DEBUG, "server pinned", LOG_I("client", client->id),
                  LOG_I("server", server->id), LOG_S("reason", reason));
    server->pinned = true;
    server->discard = true;
    client->pin_reason = reason;
}

void statement_completed(struct client *client, struct server *server,
                         const struct statement *statement, const char *tag, bool write)
{
    const char *reason = statement_pin_reason(statement);
    if (reason)
        statement_pin(client, server, reason);
    if (changes_schema(statement->kind) && client->tx)
        client->tx->changed_schema = true;
    else if (changes_schema(statement->kind))
        announce_schema_change(client);
    switch ((int)statement->kind) {
    case STMT_SET:
        if (!statement->is_local)
            setting_changed(client, statement->name, statement->value);
        else if (client->tx)
            guc_pending_add(&client->tx->locals, statement->name, statement->value);
        return;
    case STMT_RESET:
        setting_changed(client, statement->name, NULL);
        return;
    case STMT_RESET_ALL:
        setting_changed(client, NULL, NULL);
        return;
    case STMT_COMMIT:
    case STMT_ROLLBACK:
        ended(client, server, tag);
        return;
    case STMT_DISCARD:
    case STMT_DEALLOCATE:
        discarded(client, server, tag);
        return;
    case STMT_SAVEPOINT:
        if (client->tx)
            add_savepoint(client->tx, statement->name);
        return;
    case STMT_RELEASE:
        if (client->tx)
            release_savepoint(client->tx, statement->name);
        return;
    case STMT_ROLLBACK_TO:
        if (client->tx)
            rollback_to(client->tx, statement->name);
        return;
    default:
        break;
    }
    if (write)
        wrote(client, server);
}

/* ---- pins ---- */

/* Functions that leave something behind in the session. */
static const char *function_pin(const char *name)
{
    static const struct {
        const char *function, *reason;
    } pins[] = {
        {"pg_advisory_lock", "session advisory lock"},
        {"pg_advisory_lock_shared", "session advisory lock"},
        {"pg_try_advisory_lock", "session advisory lock"},
        {"pg_try_advisory_lock_shared", "session advisory lock"},
        {"setseed", "setseed()"},
        {"dblink_connect", "dblink connection"},
    };
    for (size_t i = 0; i < sizeof pins / sizeof pins[0]; i++)
        if (strcmp(pins[i].function, name) == 0)
            return pins[i].reason;
    return NULL;
}

static bool is_true(const struct expr *expr)
{
    while (expr->kind == EXPR_CAST && expr->nargs == 1)
        expr = expr->args[0];
    return expr->kind == EXPR_CONST && expr->name &&
           (strcmp(expr->name, "true") == 0 || strcmp(expr->name, "t") == 0);
}

/* set_config(name, value, true) lasts for the transaction only: nothing is left behind. */
static bool sets_for_session(const struct statement *statement)
{
    int calls = 0, local = 0;
    for (int i = 0; i < statement->nfunctions; i++)
        calls += strcmp(statement->functions[i].name, "set_config") == 0;
    for (int i = 0; calls && statement->query && i < statement->query->ntargets; i++) {
        const struct expr *call = statement->query->targets[i].expr;
        local += call && call->kind == EXPR_FUNC && strcmp(call->name, "set_config") == 0 &&
                 call->nargs == 3 && is_true(call->args[2]);
    }
    return calls > local;
}

const char *statement_pin_reason(const struct statement *statement)
{
    switch ((int)statement->kind) {
    case STMT_CREATE_TABLE:
    case STMT_CREATE_TABLE_AS:
    case STMT_DDL:
        return statement->create_temp ? "temporary table" : NULL;
    case STMT_LISTEN:
        return "LISTEN";
    case STMT_PREPARE:
        return "SQL-level PREPARE";
    case STMT_DECLARE_CURSOR:
        return statement->cursor_hold ? "WITH HOLD cursor" : NULL;
    case STMT_LOAD:
        return "LOAD";
    case STMT_SET_TRANSACTION:
        return statement->session_characteristics ? "SET SESSION CHARACTERISTICS" : NULL;
    default:
        break;
    }
    if (sets_for_session(statement))
        return "set_config()";
    for (int i = 0; i < statement->nfunctions; i++) {
        const char *reason = function_pin(statement->functions[i].name);
        if (reason)
            return reason;
    }
    return NULL;
}

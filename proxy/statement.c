/* statement.c: what statements mean to the session: the ones it answers itself, and what follows when a
 * server has completed one. */
#include "proxy/session.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pgshunt/arena.h"
#include "pgshunt/wire.h"
#include "proxy/bucket_hold.h"
#include "proxy/cursor.h"
#include "proxy/epoch.h"
#include "proxy/pins.h"
#include "proxy/reported.h"
#include "proxy/sequences.h"
#include "proxy/set_config.h"

/* ---- settings made by statements ---- */

void statement_settle(struct client *client, struct server *server, bool committed)
{
    struct guc_pending *settings = &client->request.settings;
    if (committed && settings->count) {
        guc_pending_apply(settings, NULL, &server->guc);
        guc_pending_apply(settings, client->startup, &client->guc);
    }
    if (committed) {
        reported_settle(client, server, settings);
        pins_committed(server);
    } else {
        pins_rolled_back(server);
    }
    guc_pending_free(settings);
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
                                struct buffer *answer, struct pg_error *error)
{
    if (client->tx && client->tx->implicit) {
        transaction_becomes_block(client, statement);
        return done(answer, begin_tag(statement));
    }
    if (client->tx && client->nparticipants)
        return LOCAL_NO; /* the server warns, as it should */
    if (client->tx) {
        wire_put_notice(
            answer, &(struct pg_error){.severity = "WARNING",
                                       .sqlstate = "25001",
                                       .message = "there is already a transaction in progress"});
        return done(answer, begin_tag(statement));
    }
    if (statement->nhints && !own_settings_check_begin(client, statement, error))
        return LOCAL_REFUSED;
    transaction_begin(client, statement);
    own_settings_begin(client, statement);
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
        transaction_add_savepoint(tx, statement->name);
        return done(answer, "SAVEPOINT");
    }
    if (!transaction_savepoint(tx, statement->name))
        return no_such_savepoint(client, statement->name, error);
    if (statement->kind == STMT_RELEASE) {
        transaction_release_savepoint(tx, statement->name);
        return done(answer, "RELEASE");
    }
    transaction_rollback_to(client, statement->name);
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

static enum local_outcome failed_transaction(const struct client *client, struct pg_error *error)
{
    if (bucket_hold_has_failed(client, error))
        return LOCAL_REFUSED;
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
        return failed ? failed_transaction(client, error)
                      : savepoint_unbegun(client, statement, answer, error);
    case STMT_SET_TRANSACTION:
        return failed ? failed_transaction(client, error)
                      : set_transaction(client, statement, answer);
    default:
        return failed ? failed_transaction(client, error) : LOCAL_NO;
    }
}

static bool ends_failure(enum statement_kind kind)
{
    return kind == STMT_COMMIT || kind == STMT_ROLLBACK || kind == STMT_ROLLBACK_TO;
}

bool statement_fails(const struct client *client, const struct statement *statement,
                     struct pg_error *error)
{
    if (!client->tx || client->tx->state != TX_FAILED || ends_failure(statement->kind) ||
        (!unbegun(client) && server_knows_failure(client)))
        return false;
    failed_transaction(client, error);
    return true;
}

bool statement_refused_by_mode(const struct client *client, const struct statement *statement,
                               struct pg_error *error)
{
    if (statement->kind != STMT_BEGIN || client->pool_mode != POOL_STATEMENT)
        return false;
    *error = (struct pg_error){
        .sqlstate = "0A000",
        .message = "transaction blocks are not allowed with pool.mode \"statement\"",
        .hint = "Send each statement on its own, or set pool_mode = \"transaction\" for this "
                "database or user."};
    return true;
}

/* Answered here, unless a server listens for the client itself. */
static enum local_outcome listen_statement(struct client *client, const struct statement *statement,
                                           struct buffer *answer, struct pg_error *error)
{
    if (client_keeps_servers(client) || pins_of(client) >> PIN_LISTEN & 1)
        return LOCAL_NO;
    if (client->tx && client->tx->state == TX_FAILED)
        return failed_transaction(client, error);
    switch ((int)statement->kind) {
    case STMT_LISTEN:
        return listen_to(client, statement->name) == LISTEN_WAIT ? LOCAL_WAIT
                                                                 : done(answer, "LISTEN");
    case STMT_UNLISTEN:
        listen_stop(client, statement->name);
        return done(answer, "UNLISTEN");
    default:
        listen_put_channels(client, answer);
        return LOCAL_DONE;
    }
}

/*
 * DEALLOCATE and DISCARD ALL: the names are the client's, the statements are everybody's and stay on the
 * servers. A server is needed where it judges (a failed transaction, a name of nobody's, DISCARD ALL in a
 * block), and where there is more to discard: settings, or what the client is pinned for.
 */
static enum local_outcome forget_names(struct client *client, const struct statement *statement,
                                       struct buffer *answer, struct pg_error *error)
{
    if (client->tx && client->tx->state == TX_FAILED)
        return LOCAL_NO;
    if (statement->kind == STMT_DISCARD) {
        if (strcmp(statement->name, "ALL") != 0 || client->tx || client->nparticipants ||
            client->guc != client->startup)
            return LOCAL_NO;
        listen_moved(client, NULL);
        extended_forget_all(client);
        own_settings_reset(client);
        return done(answer, "DISCARD ALL");
    }
    if (!statement->name) {
        if (pins_of(client))
            return LOCAL_NO;
        extended_forget_all(client);
        return done(answer, "DEALLOCATE ALL");
    }
    if (extended_deallocate(client, statement->name))
        return done(answer, "DEALLOCATE");
    if (strncmp(statement->name, PREPARED_PREFIX, strlen(PREPARED_PREFIX)) != 0)
        return LOCAL_NO;
    *error = (struct pg_error){.sqlstate = "26000",
                               .message = arena_printf(client->request.arena,
                                                       "prepared statement \"%s\" does not exist",
                                                       statement->name),
                               .hint = "What pgshunt prepares on servers is closed by pgshunt."};
    return LOCAL_REFUSED;
}

enum local_outcome statement_local(struct client *client, const struct statement *statement,
                                   struct buffer *answer, struct pg_error *error)
{
    if (statement_refused_by_mode(client, statement, error))
        return LOCAL_REFUSED;
    if (statement->kind == STMT_BEGIN && !(client->tx && client->tx->state == TX_FAILED))
        return begin(client, statement, answer, error);
    if (unbegun(client)) {
        enum local_outcome outcome = unbegun_statement(client, statement, answer, error);
        if (outcome != LOCAL_NO)
            return outcome;
    } else if (client->tx && client->tx->state == TX_FAILED && !server_knows_failure(client) &&
               !ends_failure(statement->kind)) {
        return failed_transaction(client, error);
    }
    if (statement->kind == STMT_LISTEN || statement->kind == STMT_UNLISTEN ||
        listen_is_question(statement)) {
        enum local_outcome outcome = listen_statement(client, statement, answer, error);
        if (outcome != LOCAL_NO)
            return outcome;
    } else if (listen_has_channels(client) && listen_asks(statement)) {
        *error = (struct pg_error){
            .sqlstate = "0A000",
            .message = "pg_listening_channels() as a part of a larger query is not supported",
            .hint = "Use SELECT pg_listening_channels() alone."};
        return LOCAL_REFUSED;
    }
    if (statement->kind == STMT_DEALLOCATE || statement->kind == STMT_DISCARD) {
        enum local_outcome outcome = forget_names(client, statement, answer, error);
        if (outcome != LOCAL_NO)
            return outcome;
    }
    if (!statement_is_own(statement))
        return LOCAL_NO;
    if (client->tx && client->tx->state == TX_FAILED)
        return failed_transaction(client, error);
    return own_setting_statement(client, statement, answer, error);
}

/* ---- after a server completed a statement ---- */

/* Changes count when their transaction commits: also outside a block there may be an error behind them, in
 * the same Query or pipeline. */
static struct guc_pending *changes(struct client *client)
{
    return client->tx ? &client->tx->settings : &client->request.settings;
}

static void setting_changed(struct client *client, bool local, const char *name, const char *value)
{
    guc_pending_add(changes(client), local, name, value);
    if (client->tx && !value && !local)
        client->tx->went_back |= guc_set_get(client->startup, name) != NULL;
}

static void settings_reset(struct client *client, enum guc_change_kind kind)
{
    guc_pending_add_kind(changes(client), kind);
    own_settings_reset(client);
    if (client->tx)
        client->tx->went_back |= client->startup != NULL;
}

/*
 * SET TRANSACTION, and SET SESSION CHARACTERISTICS AS TRANSACTION, are ways to write three settings: what a block has been
 * told counts for the servers that join it later, too.
 */
static void characteristics_changed(struct client *client, const struct statement *statement)
{
    bool lasts = statement->session_characteristics;
    const char *level = strstr(statement->begin_options, "ISOLATION LEVEL ");
    const char *deferrable = strstr(statement->begin_options, "DEFERRABLE");
    char value[40];
    if (!lasts && !client->tx)
        return;
    if (level) {
        level += strlen("ISOLATION LEVEL ");
        size_t len = strcspn(level, " ");
        if (strncmp(level, "READ ", 5) == 0 || strncmp(level, "REPEATABLE ", 11) == 0)
            len += 1 + strcspn(level + len + 1, " ");
        int printed = snprintf(value, sizeof value, "'%.*s'", (int)len, level);
        for (int i = 0; i < printed && i < (int)sizeof value; i++)
            value[i] = (char)tolower((unsigned char)value[i]);
        setting_changed(client, false,
                        lasts ? "default_transaction_isolation" : "transaction_isolation", value);
    }
    if (statement->tx_read_only || statement->tx_read_write)
        setting_changed(client, false,
                        lasts ? "default_transaction_read_only" : "transaction_read_only",
                        statement->tx_read_only ? "'on'" : "'off'");
    if (deferrable) {
        bool not =
            deferrable >= statement->begin_options + 4 && strncmp(deferrable - 4, "NOT ", 4) == 0;
        setting_changed(client, false,
                        lasts ? "default_transaction_deferrable" : "transaction_deferrable",
                        not ? "'off'" : "'on'");
    }
}

/* For who joins. What a savepoint may undo does not count. */
static void access_changed(struct transaction *tx, const struct statement *statement)
{
    if (statement->tx_read_write)
        tx->read_only = false;
    else if (statement->tx_read_only && !tx->wrote && !tx->nsavepoints)
        tx->read_only = true;
}

struct guc_pending *statement_set_configs(const struct prepared *prepared,
                                          const struct params *params)
{
    if (prepared->statements.count != 1 || !(prepared->statements.items[0]->facts & FACT_SESSION))
        return NULL;
    struct guc_pending *found = mem_alloc(sizeof *found);
    if (set_config_changes(prepared->statements.items[0], params, found) && found->count)
        return found;
    guc_pending_free(found);
    free(found);
    return NULL;
}

static void take_changes(struct client *client, const struct guc_pending *found)
{
    for (int i = 0; i < found->count; i++)
        setting_changed(client, found->items[i].local, found->items[i].name, found->items[i].value);
}

/* set_config() was called: by a Query, whose text says with what, or a portal, which knows. */
static void set_config_called(struct client *client, struct server *server,
                              const struct statement *statement, const struct expect *expect,
                              const char *tag)
{
    struct guc_pending found = {0};
    if (wire_tag_rows(tag) == 0)
        return;
    if (expect && expect->more && expect->more->settings)
        take_changes(client, expect->more->settings);
    else if (set_config_changes(statement, NULL, &found))
        take_changes(client, &found);
    else
        pin(client, server, PIN_SET_CONFIG);
    guc_pending_free(&found);
}

/* COMMIT or ROLLBACK carried out: what else is in the same message comes after it. */
static void ended(struct client *client, struct server *server, const struct statement *statement,
                  const char *tag)
{
    bool committed = strcmp(tag, "COMMIT") == 0;
    if (!committed)
        pins_rolled_back(server);
    if (!client->tx) {
        statement_settle(client, server, committed);
    } else if (client->tx->in_query && !statement->chain) {
        transaction_end(client, committed);
    } else if (!committed) {
        guc_pending_truncate(&client->tx->settings, 0);
        listen_changes_truncate(&client->tx->listens, 0);
        transaction_drop_savepoints(client->tx, 0);
        client->tx->wrote = client->tx->changed_schema = false;
    }
}

/* A BEGIN among other statements of a Query: what follows it (savepoints, settings) is its own. */
static void begun_in_query(struct client *client, struct server *server,
                           const struct statement *statement)
{
    if (client->tx)
        return;
    transaction_begin(client, statement);
    client->tx->in_query = true;
    client->tx->state = TX_OPEN;
    client->tx->settings = client->request.settings;
    client->request.settings = (struct guc_pending){0};
    client->tx->wrote = server->wrote;
    server->begun = true;
}

static void discarded(struct client *client, struct server *server, const char *tag)
{
    if (strcmp(tag, "DISCARD ALL") == 0) {
        listen_moved(client, NULL);
        epoch_forget(server);
        settings_reset(client, GUC_DISCARD_ALL);
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

/* On a replica nothing does, also where only somebody's word is there for it (route "replica"). */
static void wrote(struct client *client, struct server *server)
{
    if (atomic_load(&server->pool->node->role) == NODE_ROLE_REPLICA)
        return;
    server->wrote = true;
    if (client->tx)
        client->tx->wrote = true;
    else
        session_wrote(client, server);
    sequences_follow(client, server);
}

/* Whether its transaction, and the request at hand, can still be asked again from their beginning: attach_prefix() brings
 * settings and savepoints along. */
static void note_run(struct client *client, const struct statement *statement)
{
    struct request *request = &client->request;
    switch ((int)statement->kind) {
    case STMT_BEGIN:
    case STMT_SET:
    case STMT_SAVEPOINT:
        return;
    case STMT_RELEASE:
        request->begins = false; /* what it has let go of is not there any more */
        return;
    case STMT_ROLLBACK_TO:
        request->begins = false;
        break;
    case STMT_COMMIT:
    case STMT_ROLLBACK:
    case STMT_PREPARE_TRANSACTION:
    case STMT_PREPARE:
    case STMT_DEALLOCATE:
    case STMT_DISCARD:
        request->incomplete = true;
        break;
    default:
        break;
    }
    if (client->tx)
        client->tx->ran = true;
}

void statement_completed(struct client *client, struct server *server,
                         const struct statement *statement, const char *tag, bool write)
{
    note_run(client, statement);
    pins_follow(client, server, statement);
    if (statement->facts & FACT_SESSION)
        set_config_called(client, server, statement, server_expected(server), tag);
    if (changes_schema(statement->kind))
        transaction_follow_schema(client, statement);
    switch ((int)statement->kind) {
    case STMT_SET:
        setting_changed(client, statement->is_local, statement->name, statement->value);
        return;
    case STMT_SET_TRANSACTION:
        characteristics_changed(client, statement);
        if (client->tx && !statement->session_characteristics)
            access_changed(client->tx, statement);
        return;
    case STMT_RESET:
        setting_changed(client, false, statement->name, NULL);
        return;
    case STMT_RESET_ALL:
        epoch_forget(server);
        settings_reset(client, GUC_RESET_ALL);
        return;
    case STMT_COMMIT:
    case STMT_ROLLBACK:
        ended(client, server, statement, tag);
        return;
    case STMT_CLOSE_CURSOR:
        if (!statement->name)
            cursors_close_all(client);
        break;
    case STMT_LISTEN:
    case STMT_UNLISTEN:
        listen_moved(client, statement->name);
        return;
    case STMT_DISCARD:
    case STMT_DEALLOCATE:
        discarded(client, server, tag);
        return;
    case STMT_BEGIN:
        begun_in_query(client, server, statement);
        return;
    case STMT_SAVEPOINT:
        if (client->tx)
            transaction_add_savepoint(client->tx, statement->name);
        return;
    case STMT_RELEASE:
        if (client->tx)
            transaction_release_savepoint(client->tx, statement->name);
        return;
    case STMT_ROLLBACK_TO:
        pins_rolled_back(server);
        epoch_undone(server);
        if (client->tx)
            transaction_rollback_to(client, statement->name);
        return;
    default:
        break;
    }
    if (statement->kind == STMT_NOTIFY && client->listener)
        listen_wrote(client, server);
    if (statement->kind == STMT_NOTIFY && client->tx)
        server->notified = true;
    if (write)
        wrote(client, server);
}

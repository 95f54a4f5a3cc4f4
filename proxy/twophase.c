/*
 * twophase.c: commits what a fan-out, or a transaction over several shards, has changed: on all shards or on
 * none.
 *
 *   RUNNING --failed----------------------------------------------> ROLLING_BACK --> DONE
 *      |                                                                 ^
 *      |--one wrote, others read--> READING --its COMMITs failed---------|
 *      |                               |                                 |
 *      |--none wrote, one by one       v                                 |
 *      |  -------------------------> COMMITTING --> DONE                 |
 *      |                                                                 |
 *      '--several wrote--> PREPARING --one failed, nothing decided-------|
 *                              | all prepared but the decider,           |
 *                              v readers committed                       |
 *                          DECIDING --the decision failed----------------'
 *                              |    --the decider lost--> DONE           outcome unknown: recovery's
 *                              v 'committed' is durable
 *                          FINISHING --all COMMIT PREPARED--> DONE
 *                              | one was lost or failed: handed over to recovery
 *                              v
 *                           WAITING --recovery has finished it, or routing.failover_wait is over--> DONE
 *
 * The decider does not prepare: it commits its part together with a row in pgshunt.decision, so the decision is
 * exactly as durable as its data. Up to that commit nobody has committed anything, and whatever is found prepared
 * may be rolled back; after it everybody will commit, whoever dies. Whoever wants to roll back what it finds has to
 * take the row's key first (recovery.c).
 *
 * Who wrote is asked of the servers themselves (COMMIT_CHECK): a part without a transaction id has nothing to
 * commit.
 */
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "pgshunt/log.h"
#include "pgshunt/wire.h"
#include "pgshunt/failpoint.h"
#include "proxy/pins.h"
#include "proxy/recovery.h"
#include "proxy/scatter_internal.h"

#define WAIT_LOOK_MS 20
/* A 'rolled back' that recovery has written stays for longer than this. */
#define DECIDE_WITHIN_US (INT64_C(3600) * 1000000)

struct commit_wait {
    uv_timer_t timer;
    struct client *client;
};

/* ---- sending ---- */

static void send_part(struct scatter *scatter, struct part *part, const char *sql)
{
    struct buffer out = {0};
    wire_put_query(&out, sql);
    scatter_await(scatter, part);
    conn_send(&part->server->conn, buffer_head(&out), buffer_length(&out));
    buffer_release(&out);
}

static const char *about_gid(struct scatter *scatter, const struct part *part, const char *command)
{
    char gid[GID_SIZE];
    gid_part(scatter->gid, (int)(part - scatter->parts), gid);
    return arena_printf(&scatter->arena, "%s '%s'", command, gid);
}

static struct recovery *recovery_of(const struct scatter *scatter)
{
    return scatter->client->worker->daemon->recovery;
}

static void hand_over(struct scatter *scatter, const struct part *part)
{
    struct client *client = scatter->client;
    recovery_hand_over(recovery_of(scatter), scatter->gid, client->database->name,
                       part->shard_name);
    client->stats->in_doubt++;
}

/* True: there was something. */
static bool hand_over_unfinished(struct scatter *scatter)
{
    bool any = false;
    for (int i = 0; i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        if (!part->asked || part->finished || (!part->prepared && part->server))
            continue;
        hand_over(scatter, part);
        part->asked = false;
        any = true;
    }
    return any;
}

/* ---- what is to be done ---- */

/* Postgres does not prepare what has touched temporary tables, or notifies. */
static bool cannot_prepare(const struct part *part)
{
    const struct server *server = part->server;
    uint32_t pins = server->pins | server->new_pins;
    return server->gathered || server->notified || (pins >> PIN_TEMPORARY & 1);
}

/* A gather's temporary tables are nothing to commit. */
static void settle_who_wrote(struct scatter *scatter)
{
    for (int i = 0; i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        if (part->server->gathered && !part->server->wrote)
            part->wrote = false;
        part->wrote |= part->server->notified;
    }
}

static int count_writers(const struct scatter *scatter)
{
    int count = 0;
    for (int i = 0; i < scatter->nparts; i++)
        count += scatter->parts[i].wrote;
    return count;
}

static bool choose_decider(struct scatter *scatter)
{
    struct part *unpreparable = NULL;
    int count = 0;
    for (int i = 0; i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        if (!part->wrote)
            continue;
        scatter->decider = part;
        if (cannot_prepare(part)) {
            unpreparable = part;
            count++;
        }
    }
    if (count < 2) {
        scatter->decider = unpreparable ? unpreparable : scatter->decider;
        return true;
    }
    struct pg_error error = {
        .sqlstate = "0A000",
        .message = "a transaction that used temporary tables, or NOTIFY, on more than one of the "
                   "shards it wrote to cannot be committed on all of them together",
        .hint = "Run the queries over several shards in a transaction of their own; or set "
                "routing.multi_shard_commit to one_by_one."};
    scatter_fail(scatter, &error, NULL);
    return false;
}

static enum scatter_phase after_running(struct scatter *scatter)
{
    bool atomic = scatter->client->topology->config->multi_shard_commit == COMMIT_ATOMIC;
    if (scatter->failed)
        return SCATTER_ROLLING_BACK;
    settle_who_wrote(scatter);
    int writers = count_writers(scatter);
    if (writers > 1 && atomic)
        return choose_decider(scatter) ? SCATTER_PREPARING : SCATTER_ROLLING_BACK;
    return writers && writers < scatter->nparts ? SCATTER_READING : SCATTER_COMMITTING;
}

static enum scatter_phase after_preparing(struct scatter *scatter)
{
    failpoint("prepared");
    if (!scatter->failed && clock_us() - scatter->prepared_at > DECIDE_WITHIN_US) {
        struct pg_error error = {.sqlstate = "40000",
                                 .message = "the shards took too long to prepare the commit",
                                 .hint = "It was rolled back everywhere: run it again."};
        scatter_fail(scatter, &error, NULL);
    }
    return scatter->failed ? SCATTER_ROLLING_BACK : SCATTER_DECIDING;
}

static enum scatter_phase after_finishing(struct scatter *scatter)
{
    const struct config *config = scatter->client->topology->config;
    failpoint("finished");
    scatter->client->stats->two_phase++;
    if (!hand_over_unfinished(scatter))
        return SCATTER_DONE;
    log_event(LOG_WARNING, "a committed transaction is left to recovery on some shard",
              LOG_S("database", scatter->client->database->name), LOG_S("gid", scatter->gid));
    scatter->wait_until = clock_us() + config->failover_wait * 1000;
    return SCATTER_WAITING;
}

static void tell_in_doubt(struct scatter *scatter)
{
    struct pg_error notice = {
        .severity = "WARNING",
        .sqlstate = "01000",
        .message = "the transaction is committed, but not every shard could be told yet",
        .hint = "Until it is, its changes do not show there and their rows stay locked; pgshunt "
                "keeps trying."};
    wire_put_notice(&scatter->out, &notice);
}

static enum scatter_phase after_waiting(struct scatter *scatter)
{
    if (!recovery_is_in_doubt(recovery_of(scatter), scatter->gid))
        return SCATTER_DONE;
    if (clock_us() < scatter->wait_until)
        return SCATTER_WAITING;
    tell_in_doubt(scatter);
    return SCATTER_DONE;
}

static enum scatter_phase next_phase(struct scatter *scatter)
{
    switch (scatter->phase) {
    case SCATTER_RUNNING:
        return after_running(scatter);
    case SCATTER_READING:
        return scatter->failed ? SCATTER_ROLLING_BACK : SCATTER_COMMITTING;
    case SCATTER_PREPARING:
        return after_preparing(scatter);
    case SCATTER_DECIDING:
        if (scatter->unknown)
            return SCATTER_DONE;
        return scatter->failed ? SCATTER_ROLLING_BACK : SCATTER_FINISHING;
    case SCATTER_FINISHING:
        return after_finishing(scatter);
    case SCATTER_WAITING:
        return after_waiting(scatter);
    case SCATTER_COMMITTING:
    case SCATTER_ROLLING_BACK:
    case SCATTER_DONE:
        break;
    }
    return SCATTER_DONE;
}

/* ---- entering a phase ---- */

static const char *plain_commit(const struct scatter *scatter)
{
    return scatter_chains(scatter) ? "COMMIT AND CHAIN" : "COMMIT";
}

static void commit_readers(struct scatter *scatter, const char *sql)
{
    for (int i = 0; i < scatter->nparts; i++)
        if (!scatter->parts[i].wrote)
            send_part(scatter, &scatter->parts[i], sql);
}

static void commit_rest(struct scatter *scatter)
{
    scatter->one_by_one = true;
    for (int i = 0; i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        if (part->server && !part->committed)
            send_part(scatter, part, plain_commit(scatter));
    }
}

static void prepare(struct scatter *scatter)
{
    struct client *client = scatter->client;
    gid_make(client->database->name, scatter->decider->shard_name, scatter->gid);
    scatter->prepared_at = clock_us();
    for (int i = 0; i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        if (!part->wrote || part == scatter->decider)
            continue;
        part->asked = true;
        send_part(scatter, part, about_gid(scatter, part, "PREPARE TRANSACTION"));
    }
    commit_readers(scatter, "COMMIT");
    failpoint("prepare_sent");
}

static void decide(struct scatter *scatter)
{
    const char *sql =
        arena_printf(&scatter->arena,
                     "INSERT INTO pgshunt.decision (gid, verdict) VALUES ('%s', 'committed'); "
                     "COMMIT",
                     scatter->gid);
    send_part(scatter, scatter->decider, sql);
    failpoint("decision_sent");
}

static void finish_prepared(struct scatter *scatter)
{
    failpoint("decided");
    for (int i = 0; i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        if (part->prepared && part->server)
            send_part(scatter, part, about_gid(scatter, part, "COMMIT PREPARED"));
    }
    failpoint("finish_sent");
}

/* PREPARE has kept the session settings which the transaction had made: the server has what nobody knows. */
static void undo_prepared(struct scatter *scatter, struct part *part)
{
    const struct transaction *tx = scatter->client->tx;
    if (tx && tx->settings.count)
        part->server->discard = true;
    send_part(scatter, part, about_gid(scatter, part, "ROLLBACK PREPARED"));
}

/* Where the answer to BEGIN is still to come, as another shard was quicker to fail, it is in one, too. */
static bool is_in_transaction(const struct server *server)
{
    return server->tx_status != 'I' || server->expect_count;
}

static void roll_back(struct scatter *scatter)
{
    for (int i = 0; i < scatter->nparts; i++) {
        struct part *part = &scatter->parts[i];
        if (part->server && part->prepared)
            undo_prepared(scatter, part);
        else if (part->server && is_in_transaction(part->server))
            send_part(scatter, part, "ROLLBACK");
    }
}

static void look(uv_timer_t *timer)
{
    struct commit_wait *wait = timer->data;
    scatter_advance(wait->client->scatter);
}

static void begin_to_wait(struct scatter *scatter)
{
    struct commit_wait *wait = mem_alloc(sizeof *wait);
    wait->client = scatter->client;
    uv_timer_init(&scatter->client->worker->loop, &wait->timer);
    wait->timer.data = wait;
    uv_timer_start(&wait->timer, look, WAIT_LOOK_MS, WAIT_LOOK_MS);
    scatter->wait = wait;
}

static void enter(struct scatter *scatter, enum scatter_phase phase)
{
    scatter->phase = phase;
    switch (phase) {
    case SCATTER_READING:
        commit_readers(scatter, plain_commit(scatter));
        break;
    case SCATTER_COMMITTING:
        commit_rest(scatter);
        break;
    case SCATTER_PREPARING:
        prepare(scatter);
        break;
    case SCATTER_DECIDING:
        decide(scatter);
        break;
    case SCATTER_FINISHING:
        finish_prepared(scatter);
        break;
    case SCATTER_ROLLING_BACK:
        roll_back(scatter);
        break;
    case SCATTER_WAITING:
        begin_to_wait(scatter);
        break;
    case SCATTER_RUNNING:
    case SCATTER_DONE:
        break;
    }
}

void commit_advance(struct scatter *scatter)
{
    while (!scatter->awaited && scatter->phase != SCATTER_DONE) {
        enum scatter_phase next = next_phase(scatter);
        if (next == scatter->phase) /* WAITING */
            return;
        enter(scatter, next);
    }
}

/* ---- answers ---- */

static void explain_prepare(struct pg_error *error)
{
    if (strcmp(error->sqlstate, "55000") != 0)
        return;
    error->hint =
        "Nothing was committed. A transaction on several shards is committed by two-phase "
        "commit: set max_prepared_transactions on every server (to its max_connections, "
        "say; that takes a restart), or routing.multi_shard_commit to one_by_one.";
}

static void explain_decision(struct pg_error *error)
{
    if (strcmp(error->sqlstate, "42P01") != 0 && strcmp(error->sqlstate, "3F000") != 0 &&
        strcmp(error->sqlstate, "42501") != 0)
        return;
    error->hint = "Nothing was committed. The table pgshunt.decision has to be on every shard: "
                  "pgshunt makes it when monitor.user may; its log has the SQL to do it by hand.";
}

bool commit_took_error(struct scatter *scatter, struct part *part, struct pg_error *error)
{
    if (scatter->phase == SCATTER_PREPARING && part->asked) {
        explain_prepare(error);
        part->asked = false; /* Postgres has rolled it back */
    }
    if (scatter->phase == SCATTER_DECIDING)
        explain_decision(error);
    bool later = scatter->phase == SCATTER_FINISHING ||
                 (scatter->phase == SCATTER_ROLLING_BACK && part->prepared);
    if (later)
        log_event(LOG_WARNING, "a prepared transaction could not be finished, and will be later",
                  LOG_S("gid", scatter->gid), LOG_S("shard", part->shard_name),
                  LOG_S("reason", error->message));
    return later;
}

static void note_commit(struct scatter *scatter, struct part *part, const char *tag)
{
    part->committed = strcmp(tag, "COMMIT") == 0;
    if (part->committed || strncmp(tag, "INSERT", 6) == 0)
        return;
    struct pg_error error = {.sqlstate = "40000",
                             .message = "a shard rolled the transaction back",
                             .hint = "Run it again."};
    scatter_fail(scatter, &error, part->shard_name);
}

void commit_took_tag(struct scatter *scatter, struct part *part, const char *tag)
{
    switch ((int)scatter->phase) {
    case SCATTER_PREPARING:
        if (strcmp(tag, "PREPARE TRANSACTION") == 0) {
            part->prepared = true;
            failpoint("prepared_one");
            break;
        }
        note_commit(scatter, part, tag);
        break;
    case SCATTER_READING:
    case SCATTER_COMMITTING:
    case SCATTER_DECIDING:
        note_commit(scatter, part, tag);
        break;
    case SCATTER_FINISHING:
    case SCATTER_ROLLING_BACK:
        part->finished = part->prepared;
        if (scatter->phase == SCATTER_FINISHING)
            failpoint("finished_one");
        break;
    default:
        break;
    }
}

void commit_took_check(struct part *part, const char *body, size_t len)
{
    struct wire_reader reader = wire_reader(body, len);
    int columns = wire_read16(&reader);
    int32_t length = wire_read32(&reader);
    const char *value = length == 1 ? wire_read_bytes(&reader, 1) : NULL;
    part->wrote = reader.bad || columns != 1 || !value || *value == 't'; /* in doubt: it did */
}

/* ---- losses ---- */

bool commit_lost(struct scatter *scatter, struct part *part, struct pg_error *error)
{
    switch ((int)scatter->phase) {
    case SCATTER_DECIDING:
        if (part != scatter->decider || part->committed)
            return false;
        scatter->unknown = true;
        error->sqlstate = "08007";
        error->hint =
            "Whether it was committed is not known yet: it will be on all shards or on none. "
            "Check, then run it again if it was not.";
        return true;
    case SCATTER_PREPARING:
        return !part->prepared && !part->committed;
    case SCATTER_FINISHING:
    case SCATTER_WAITING:
    case SCATTER_DONE:
        return false;
    case SCATTER_COMMITTING:
        if (!part->awaited)
            return false;
        error->hint = "Whether it was committed there is not known: check, then repair.";
        return true;
    default:
        return true;
    }
}

static void free_wait(uv_handle_t *handle)
{
    free(handle->data);
}

void commit_forget(struct scatter *scatter)
{
    for (int i = 0; i < scatter->nparts; i++)
        if (scatter->parts[i].asked && !scatter->parts[i].finished)
            hand_over(scatter, &scatter->parts[i]);
    if (scatter->wait)
        uv_close((uv_handle_t *)&scatter->wait->timer, free_wait);
}

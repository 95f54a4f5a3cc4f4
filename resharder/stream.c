/* stream.c: reads a slot and has its changes applied, in a thread. */
#include "resharder/stream.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "resharder/slot.h"
#include "resharder/spill.h"
#include "resharder/stream_lag.h"
#include "resharder/stream_open.h"

#define STOP_MS 1000   /* for what the source is still to be told */
#define STATUS_MS 1000 /* wal_sender_timeout is a minute */
#define SAMPLE_MS 250
#define IDLE_MS 50
#define MESSAGES_AT_ONCE 256 /* then answers are taken */
#define PG_EPOCH 946684800   /* 2000-01-01 */

struct stream {
    struct stream_options options;
    PGconn *replication;
    struct apply *apply;
    pthread_t thread;
    volatile sig_atomic_t stop;

    /* the thread's own */
    struct pgoutput_parser parser;
    struct spill *spills;     /* of transactions that are streamed and not over */
    struct spill *current;    /* between STREAM_START and STREAM_STOP */
    bool within, skipping;    /* a transaction that is not streamed; it is the opposite stream's */
    bool reached;             /* `until`: nothing more is applied */
    bool holding;             /* behind the marker of stream_hold() */
    uint64_t received, alive; /* newest message; newest keepalive: all before it has come */
    uint64_t safe;            /* all up to here is on the target */
    uint64_t kept;            /* ... and its keys on the source: the slot may forget it */
    uint64_t begun;           /* what the target had at the start */
    int64_t told_ms, asked_ms;
    struct stream_lag lag;
    struct apply_failure failure;

    pthread_mutex_t lock; /* of what follows */
    struct stream_state state;
    char hold[sizeof((struct apply_progress *)0)->marker];
};

/* ---- failures ---- */

static bool problem(struct stream *stream, bool passing, const char *text, const char *why)
{
    struct apply_failure *failure = &stream->failure;
    if (failure->error.text[0])
        return false;
    snprintf(failure->error.text, sizeof failure->error.text, "%s%s%.400s", text,
             why && *why ? ": " : "", why ? why : "");
    for (char *p = failure->error.text; *p; p++)
        if (*p == '\n')
            *p = ' ';
    failure->passing = passing;
    return false;
}

static bool applied(struct stream *stream, bool good)
{
    if (!good && !stream->failure.error.text[0])
        stream->failure = *apply_failure(stream->apply);
    return good;
}

/* ---- what the source and others are told ---- */

static bool is_idle(const struct stream *stream)
{
    return !apply_has_pending(stream->apply) && !stream->within &&
           !apply_commits_under_way(stream->apply);
}

/* Where nothing waits, all that has come is applied, though nothing of it was for us. */
static void find_safe(struct stream *stream)
{
    uint64_t safe = apply_progress(stream->apply)->applied, until = stream->options.until;
    if (is_idle(stream) && stream->alive > safe)
        safe = stream->alive;
    if (until && safe > until)
        safe = until;
    if (safe > stream->safe)
        stream->safe = safe;
    uint64_t kept = apply_kept(stream->apply);
    if (is_idle(stream) && apply_keys_are_kept(stream->apply) && stream->alive > kept)
        kept = stream->alive; /* what was known at the start has come, or need not */
    kept = kept < stream->safe ? kept : stream->safe;
    if (kept > stream->kept)
        stream->kept = kept;
}

static int64_t pg_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return ((int64_t)now.tv_sec - PG_EPOCH) * 1000000 + now.tv_nsec / 1000;
}

static bool send_status(struct stream *stream, bool wants_reply)
{
    struct buffer status = {0};
    uint64_t received = stream->received > stream->safe ? stream->received : stream->safe;
    replication_put_status(&status, received, stream->kept, pg_now(), wants_reply);
    int sent =
        PQputCopyData(stream->replication, buffer_head(&status), (int)buffer_length(&status));
    buffer_release(&status);
    if (sent < 0 || PQflush(stream->replication) < 0)
        return problem(stream, true, "source", PQerrorMessage(stream->replication));
    return true;
}

static void publish(struct stream *stream)
{
    const struct apply_progress *progress = apply_progress(stream->apply);
    int64_t now = db_clock_ms();
    stream_lag_sample(&stream->lag, progress->source_end, progress->source_asked_ms);
    stream_lag_applied(&stream->lag, stream->safe);
    pthread_mutex_lock(&stream->lock);
    stream->state.progress = *progress;
    stream->state.progress.applied = stream->safe;
    stream->state.catching_up = stream->kept < stream->begun;
    stream->state.received = stream->received;
    stream->state.lag_bytes = stream_lag_bytes(&stream->lag, stream->safe, now);
    stream->state.lag_seconds = stream_lag_seconds(&stream->lag, now);
    stream->holding = stream->holding && *stream->hold;
    stream->state.held = stream->holding && !apply_commits_under_way(stream->apply);
    pthread_mutex_unlock(&stream->lock);
}

/* What is due by the clock; also while something waits for the target. */
static bool tend(struct stream *stream)
{
    int64_t now = db_clock_ms();
    find_safe(stream);
    publish(stream);
    if (now - stream->asked_ms >= SAMPLE_MS) {
        stream->asked_ms = now;
        if (!applied(stream, apply_ask_source(stream->apply)))
            return false;
    }
    if (now - stream->told_ms < STATUS_MS)
        return true;
    stream->told_ms = now;
    return send_status(stream, is_idle(stream));
}

static void attend(void *arg)
{
    struct stream *stream = arg;
    if (stream->replication && !tend(stream)) /* not while the sessions are set up */
        return;                               /* a failure stays, and is found later */
}

/* ---- transactions ---- */

static bool is_due(const struct stream *stream, uint64_t commit)
{
    return !stream->options.until || commit < stream->options.until;
}

static bool begin(struct stream *stream, const struct pgoutput_message *message)
{
    stream->within = true;
    stream->skipping = false;
    if (!is_due(stream, message->lsn)) {
        stream->reached = true;
        return true;
    }
    return applied(stream, apply_begin(stream->apply, message->lsn));
}

static bool is_to_be_held(struct stream *stream, const char *marker)
{
    pthread_mutex_lock(&stream->lock);
    bool held = marker && *stream->hold && strcmp(stream->hold, marker) == 0;
    pthread_mutex_unlock(&stream->lock);
    return held;
}

static bool end(struct stream *stream, const struct pgoutput_message *message)
{
    stream->within = stream->skipping = false;
    if (!applied(stream, apply_end(stream->apply, message->end, message->time)))
        return false;
    stream->holding = is_to_be_held(stream, apply_marker(stream->apply));
    return !apply_is_due(stream->apply) || applied(stream, apply_commit(stream->apply));
}

static bool is_opposite(const struct stream *stream, const char *origin)
{
    return stream->options.skip_origin && strcmp(origin, stream->options.skip_origin) == 0;
}

static bool is_description(const struct pgoutput_message *message)
{
    return message->kind == PGOUTPUT_RELATION || message->kind == PGOUTPUT_TYPE;
}

static bool change(struct stream *stream, const struct pgoutput_message *message)
{
    if (stream->skipping && !is_description(message))
        return true;
    return applied(stream, apply_change(stream->apply, message));
}

/* ---- transactions that are streamed ---- */

static struct spill *find_spill(struct stream *stream, uint32_t xid)
{
    struct spill *spill = stream->spills;
    while (spill && spill->xid != xid)
        spill = spill->next;
    return spill;
}

static void drop_spill(struct stream *stream, struct spill *spill)
{
    struct spill **link = &stream->spills;
    while (*link && *link != spill)
        link = &(*link)->next;
    if (*link)
        *link = spill->next;
    spill_close(spill);
}

static bool stream_block(struct stream *stream, const struct pgoutput_message *message)
{
    struct spill *spill = find_spill(stream, message->xid);
    if (message->first && spill) { /* a slot that was read from before: it comes anew */
        drop_spill(stream, spill);
        spill = NULL;
    }
    if (!spill && !message->first)
        return problem(stream, true, "the source sent the rest of a transaction that had not begun",
                       NULL);
    if (!spill) {
        spill = spill_open(message->xid);
        if (!spill)
            return problem(stream, true, "no file for a large transaction can be made",
                           strerror(errno));
        spill->next = stream->spills;
        stream->spills = spill;
    }
    stream->current = spill;
    return true;
}

static bool stream_abort(struct stream *stream, const struct pgoutput_message *message)
{
    struct spill *spill = find_spill(stream, message->xid);
    if (!spill)
        return true;
    if (message->xid == message->subxid)
        drop_spill(stream, spill);
    else
        spill_abort(spill, message->subxid);
    return true;
}

static bool replay_message(struct stream *stream, struct spill *spill, const char *bytes,
                           size_t length)
{
    struct pgoutput_message message;
    const char *wrong = pgoutput_read(&stream->parser, bytes, length, true, &message);
    if (wrong)
        return problem(stream, false, wrong, NULL);
    /* What a table looks like is not forgotten with the subtransaction that it was first sent in. */
    bool left_out = spill->skipped || spill_is_aborted(spill, message.xid);
    if (left_out && !is_description(&message))
        return true;
    return applied(stream, apply_change(stream->apply, &message));
}

static bool replay(struct stream *stream, struct spill *spill)
{
    size_t length;
    const char *bytes;
    if (!spill_rewind(spill))
        return problem(stream, true, "the file of a large transaction cannot be written",
                       strerror(errno));
    for (int64_t count = 1; (bytes = spill_read(spill, &length)); count++) {
        if (!replay_message(stream, spill, bytes, length))
            return false;
        if (count % MESSAGES_AT_ONCE)
            continue;
        if (stream->stop)
            return problem(stream, true, "interrupted", NULL);
        if (!applied(stream, apply_take(stream->apply)) || !tend(stream))
            return false;
    }
    return !length ||
           problem(stream, true, "the file of a large transaction cannot be read", strerror(errno));
}

static bool stream_commit(struct stream *stream, const struct pgoutput_message *message)
{
    struct spill *spill = find_spill(stream, message->xid);
    struct pgoutput_message commit = *message;
    if (!spill)
        return problem(stream, true, "the source committed a transaction that had not begun", NULL);
    if (!begin(stream, &commit))
        return false;
    if (!stream->reached && (!replay(stream, spill) || !end(stream, &commit)))
        return false;
    drop_spill(stream, spill);
    return true;
}

static bool keep(struct stream *stream, const struct pgoutput_message *message, const char *bytes,
                 size_t length)
{
    if (message->kind == PGOUTPUT_ORIGIN) {
        stream->current->skipped = is_opposite(stream, message->name);
        return true;
    }
    return spill_write(stream->current, bytes, length) ||
           problem(stream, true, "the file of a large transaction cannot be written",
                   strerror(errno));
}

/* ---- messages ---- */

static bool take_message(struct stream *stream, const char *bytes, size_t length)
{
    struct pgoutput_message message;
    const char *wrong =
        pgoutput_read(&stream->parser, bytes, length, stream->current != NULL, &message);
    if (wrong)
        return problem(stream, false, wrong, NULL);
    if (message.kind == PGOUTPUT_STREAM_STOP) {
        stream->current = NULL;
        return true;
    }
    if (stream->current)
        return keep(stream, &message, bytes, length);
    switch ((int)message.kind) {
    case PGOUTPUT_BEGIN:
        return begin(stream, &message);
    case PGOUTPUT_COMMIT:
        return end(stream, &message);
    case PGOUTPUT_ORIGIN:
        stream->skipping = is_opposite(stream, message.name);
        return true;
    case PGOUTPUT_STREAM_START:
        return stream_block(stream, &message);
    case PGOUTPUT_STREAM_COMMIT:
        return stream_commit(stream, &message);
    case PGOUTPUT_STREAM_ABORT:
        return stream_abort(stream, &message);
    default:
        return change(stream, &message);
    }
}

static bool take_frame(struct stream *stream, const char *bytes, size_t length)
{
    struct replication_frame frame;
    if (!replication_read_frame(bytes, length, &frame))
        return problem(stream, false, "the source sent something that is not understood", NULL);
    if (frame.kind == 'w') {
        if (frame.start > stream->received)
            stream->received = frame.start;
        return take_message(stream, frame.data, frame.length);
    }
    if (frame.end > stream->alive)
        stream->alive = frame.end;
    if (frame.end > stream->received)
        stream->received = frame.end;
    if (!is_due(stream, frame.end))
        stream->reached = true;
    if (!frame.wants_reply)
        return true;
    find_safe(stream);
    return send_status(stream, false);
}

/* ---- the thread ---- */

static bool ended(struct stream *stream)
{
    PGresult *result = PQgetResult(stream->replication);
    const char *sqlstate = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *text = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    problem(stream, !sqlstate || apply_is_passing(sqlstate), "source",
            text ? text : PQerrorMessage(stream->replication));
    if (!stream->failure.error.sqlstate[0] && sqlstate)
        snprintf(stream->failure.error.sqlstate, sizeof stream->failure.error.sqlstate, "%s",
                 sqlstate);
    PQclear(result);
    return false;
}

/* One message, if there is one: 1; 0: none; -1: failed. */
static int take_one(struct stream *stream)
{
    char *bytes = NULL;
    int length = PQgetCopyData(stream->replication, &bytes, 1);
    if (length == 0)
        return 0;
    if (length < 0)
        return ended(stream) ? 0 : -1;
    bool good = take_frame(stream, bytes, (size_t)length);
    PQfreemem(bytes);
    return good ? 1 : -1;
}

static void wait_sockets(struct stream *stream, bool for_source)
{
    struct pollfd sockets[] = {
        {.fd = apply_socket(stream->apply), .events = POLLIN},
        {.fd = apply_source_socket(stream->apply), .events = POLLIN},
        {.fd = PQsocket(stream->replication), .events = POLLIN},
    };
    poll(sockets, for_source ? 3 : 2, IDLE_MS);
}

/* Nothing is there to be read: what is complete is committed, unless a commit is under way: then it waits for more. */
static bool rest(struct stream *stream, bool for_source)
{
    if (apply_has_pending(stream->apply) && !apply_commits_under_way(stream->apply) &&
        !applied(stream, apply_commit(stream->apply)))
        return false;
    wait_sockets(stream, for_source);
    return true;
}

/* Takes up what there is. */
static bool turn(struct stream *stream)
{
    int taken = 1;
    for (int i = 0; i < MESSAGES_AT_ONCE && taken > 0 && !stream->reached && !stream->holding;
         i++) {
        taken = take_one(stream);
        if (taken)
            continue;
        if (!PQconsumeInput(stream->replication))
            return problem(stream, true, "source", PQerrorMessage(stream->replication));
        taken = take_one(stream);
    }
    if (taken < 0 || !applied(stream, apply_take(stream->apply)) || !tend(stream))
        return false;
    return taken > 0 || rest(stream, true);
}

static bool finish(struct stream *stream)
{
    stream->within = false;
    if (!applied(stream, apply_commit(stream->apply)) ||
        !applied(stream, apply_wait(stream->apply)))
        return false;
    stream->alive = stream->options.until;
    find_safe(stream);
    publish(stream);
    return send_status(stream, false);
}

static void *work(void *arg)
{
    struct stream *stream = arg;
    bool good = true;
    while (good && !stream->stop && !stream->reached) {
        if (!stream->holding)
            good = turn(stream);
        else
            good =
                applied(stream, apply_take(stream->apply)) && tend(stream) && rest(stream, false);
    }
    bool finished = good && stream->reached && finish(stream);
    if (good && !finished && stream->stop)
        apply_flush_keys(stream->apply, STOP_MS);
    pthread_mutex_lock(&stream->lock);
    stream->state.running = false;
    stream->state.finished = finished;
    stream->state.failure = stream->failure;
    stream->state.lag_bytes = -1;
    stream->state.lag_seconds = -1;
    pthread_mutex_unlock(&stream->lock);
    return NULL;
}

/* ---- beginning and end ---- */

static void stream_free(struct stream *stream)
{
    apply_close(stream->apply);
    PQfinish(stream->replication);
    while (stream->spills)
        drop_spill(stream, stream->spills);
    pgoutput_release(&stream->parser);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
}

struct stream *stream_start(struct reshard *reshard, const struct stream_options *options,
                            struct apply_failure *failure)
{
    struct stream *stream = mem_alloc(sizeof *stream);
    stream->options = *options;
    stream->state = (struct stream_state){.running = true, .lag_bytes = -1, .lag_seconds = -1};
    pthread_mutex_init(&stream->lock, NULL);
    *failure = (struct apply_failure){.passing = false};
    struct stream_open_request request = {
        .options = &stream->options, .arg = stream, .attend = attend, .stop = &stream->stop};
    if (stream_open(reshard, &request, &stream->apply, &stream->replication, failure)) {
        stream->safe = stream->begun = apply_progress(stream->apply)->applied;
        stream->state.catching_up = stream->begun > 0;
        stream->state.progress = *apply_progress(stream->apply);
        if (pthread_create(&stream->thread, NULL, work, stream) == 0)
            return stream;
        snprintf(failure->error.text, sizeof failure->error.text, "no thread can be started");
        failure->passing = true;
    }
    stream_free(stream);
    return NULL;
}

void stream_state(struct stream *stream, struct stream_state *state)
{
    pthread_mutex_lock(&stream->lock);
    *state = stream->state;
    pthread_mutex_unlock(&stream->lock);
}

void stream_hold(struct stream *stream, const char *marker)
{
    pthread_mutex_lock(&stream->lock);
    snprintf(stream->hold, sizeof stream->hold, "%s", marker);
    pthread_mutex_unlock(&stream->lock);
}

void stream_release(struct stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    stream->hold[0] = '\0';
    stream->state.held = false;
    pthread_mutex_unlock(&stream->lock);
}

void stream_stop(struct stream *stream)
{
    if (!stream)
        return;
    stream->stop = 1;
    pthread_join(stream->thread, NULL);
    stream_free(stream);
}

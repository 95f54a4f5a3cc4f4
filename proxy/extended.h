/*
 * extended.h: the state of a client's extended-protocol batch (from its first message to Sync).
 *
 *   CLOSED --P,B,D,E,C--> OPEN --Sync--> SYNCING --ReadyForQuery passed on--> CLOSED
 *                          | ^
 *           another server | | its ReadyForQuery (not passed on)
 *           or a fan-out   v |
 *                        SETTLING          an error: FAILED until Sync, as Postgres does
 *
 *   OPEN      messages are translated one by one into `out`, which is sent at Sync, Flush, or when long
 *   SETTLING  a Sync of ours was sent, so that all answers so far come before what follows
 *   FAILED    everything up to Sync is skipped; the error has been (or will be) told in its place
 */
#ifndef PGSHUNT_PROXY_EXTENDED_H
#define PGSHUNT_PROXY_EXTENDED_H

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"
#include "pgshunt/wire.h"
#include "proxy/names.h"
#include "proxy/session.h"

#include "pgshunt/wire.h"

/* Bytes of what may have to be asked again, at most. */
#define EXTENDED_KEPT_MAX 16384

enum batch_state {
    BATCH_CLOSED,
    BATCH_OPEN,
    BATCH_SETTLING,
    BATCH_SCATTER,
    BATCH_FAILED,
    BATCH_SYNCING
};

/* A Parse not yet answered: it waits for a server to be chosen by a Bind, a Describe or the Sync. */
struct held_parse {
    char *name;
    struct prepared *prepared; /* reference */
    struct prepared *older;    /* what the name was before: reference, or NULL */
};

struct extended {
    struct names names;
    enum batch_state state;
    struct server *server; /* has messages of this batch that are not synced; else NULL */
    struct buffer out;     /* for `server`, not sent yet */
    struct buffer early; /* answers of our own, held back while the batch may have to be repeated */
    struct held_parse *held;
    int nheld, held_cap;
    char **defined; /* names defined in this batch, to be undone if it is repeated */
    int ndefined, defined_cap;
    struct held_parse *
        forgotten; /* ... and those it has taken away, having bound something before (`older`: NULL) */
    int nforgotten, forgotten_cap;
    bool executed_write; /* an Execute that may write was sent to a server in this batch */
    bool pressed;        /* a Flush was sent because too many answers are awaited */
    bool
        pushed; /* ... or for whatever reason: answers of our own wait for nothing but their turn */
    bool failed;    /* a server reported an error in this batch */
    bool described; /* the batch asks for a description */
    bool unsafe;    /* it has bound more than reads on a replica: not to be repeated elsewhere */
    bool judging; /* a server is wanted for the held Parses' sake alone: no server, no answer '1' */
    /* of batches behind each other (pipeline.c) */
    int ahead;    /* sent before this one and not answered to their end */
    int run;      /* batches since the first that had none ahead */
    size_t kept;  /* bytes of request.again that are not this one's */
    bool alone;   /* it does what the next one has to see the outcome of */
    bool stalled; /* its message at hand waits until nothing is ahead */
    bool parsed;  /* it has a Parse of the unnamed statement */
    bool
        doubts; /* the message at hand is to be refused, once a server has judged the Parses before it */
};

/* One message being worked on. */
struct incoming {
    char type;
    const char *body;
    size_t len;
    const char *rest; /* what follows it in the input */
    size_t rest_len;
};

/* For the server as the client has sent it. */
static inline void incoming_pass_on(struct buffer *out, const struct incoming *message)
{
    buffer_append(out, message->body - WIRE_HEADER, WIRE_HEADER + message->len);
}

struct extended *extended_of(struct client *client); /* made when it is not there */

/* ---- batch.c ---- */

/* Sends what is translated. */
void batch_flush(struct extended *ext);
/* An answer of our own, behind the answers still awaited. Takes over `bytes`. */
void batch_answer(struct client *client, struct buffer *bytes);
/* What was held back goes out. */
void batch_send_early(struct client *client);
/* Answers of our own that nothing of the server's stands in front of. */
void batch_emit_heads(struct client *client);
void batch_answer_simple(struct client *client, char type);
COLD void batch_refuse(struct client *client, const char *sqlstate, const char *message);
COLD void batch_malformed(struct client *client);
/* A Describe or Close of neither a statement nor a portal. */
COLD void batch_refuse_subtype(struct client *client, const char *message, int subtype);
void batch_free(struct extended *ext, bool undo);
/* The batch is sent, and the next one begins before it is answered. */
void batch_begin_behind(struct extended *ext);

static inline bool batch_is_named(const char *name)
{
    return name[0] != '\0';
}
/* The server's name for the client's `name` of it. */
static inline const char *batch_server_name(const struct prepared *prepared, const char *name)
{
    return batch_is_named(name) || prepared->prepare_sql ? prepared->server_name : "";
}
/* Refuses what would go beyond what one client may hold: one more statement, or (NULL) a portal. */
bool batch_too_many(struct client *client, const struct prepared *more);
void batch_define(struct client *client, const char *name, struct prepared *prepared);
/* The name is about to lose this meaning: it is given back if the batch is repeated. */
void batch_note_forgotten(struct client *client, const char *name, struct prepared *prepared);
/* NULL: there is none, the client was told. */
struct prepared *batch_find_statement(struct client *client, const char *name);
struct portal *batch_portal(struct client *client, const char *name); /* or NULL */
struct portal *batch_find_portal(struct client *client, const char *name);
/* An Execute for the batch's server; expects the answer of one that is in `out`. */
struct expect *batch_expect_executed(struct client *client, struct prepared *prepared, bool write);
struct expect *batch_execute(struct client *client, const char *portal, int32_t max_rows,
                             struct prepared *prepared, bool write);
/* Runs a fan-out, when everything before it is answered. False: later. */
bool batch_scatter(struct client *client, struct scatter_ask *ask);
/* In a failed transaction that no server knows of: refuses, true. */
bool batch_refuse_failed(struct client *client, const struct prepared *prepared);

/* ---- own_portals.c: statements of the session's own, and what a failed transaction takes ---- */

/* What Postgres refuses before it looks into a Bind's values. True: so it was. */
COLD bool own_refuses_bind(struct client *client, const struct prepared *prepared,
                           const struct wire_bind *bind);
void own_bind(struct client *client, struct prepared *prepared, const struct wire_bind *bind);
/* Of a statement; true: answered without a server. */
bool own_describe(struct client *client, const struct prepared *prepared);
void own_describe_portal(struct client *client, const struct portal *portal);
/* False: try again later. */
bool own_execute(struct client *client, struct portal *portal);
/* A portal that has run to its end is executed again. True: answered. */
bool own_execute_again(struct client *client, const struct portal *portal, bool rows);

/* ---- batch_prepare.c ---- */

/* Of the client's search_path: the same text may mean other tables under another. 0: the server's own. */
uint32_t batch_path(const struct client *client);
/* Who would judge a text alike: the same user in the same schema with the same settings. */
uint64_t batch_judge(const struct client *client);
/* Takes over the reference on `older`, what the name was before (or NULL). */
void batch_hold_parse(struct client *client, const char *name, struct prepared *prepared,
                      struct prepared *older);
void batch_drop_held(struct extended *ext);
/* Makes room for one more in an array of a batch, which keeps it for the next ones. */
void *batch_grow(void *array, size_t size, int count, int *cap);
/* At its end: a long one's array is given back. */
void *batch_shrink(void *array, int *cap);
/* Answers the Parses that waited: from what the server knows, or by asking it. Answers of our own wait in
 * the server's queue for what comes behind them. */
void batch_release_held(struct client *client);
/* Whether all that wait have been judged before. */
bool batch_held_accepted(const struct client *client);
/* ... without asking one. */
void batch_accept_held(struct client *client);
/* Makes sure that the server has the statement by the time it reads what follows. */
void batch_ensure_prepared(struct client *client, struct prepared *prepared, bool named);
/* The same ahead of a Query, outside batches. */
void batch_prepare_ahead(struct client *client, struct server *server, struct buffer *out,
                         struct prepared *prepared);
/* ... only the place for it: the Query prepares it. */
void batch_room_ahead(struct client *client, struct server *server, struct buffer *out,
                      struct prepared *prepared);

/* ---- pipeline.c ---- */

/* A batch whose Sync was sent: whether the next one, at `data`, goes behind it now; begins it. */
bool pipeline_begin(struct client *client, const char *data, size_t len);
/* With batches ahead: whether a message may be translated that has this to do with a statement, a portal. */
bool pipeline_takes_statement(const struct client *client, const char *name);
bool pipeline_takes_plan(const struct client *client, const struct plan *plan);
bool pipeline_takes_portal(const struct client *client, const char *name);
/* The errors and ends of the batches ahead, whose server is lost; gives the error of the one at hand. */
const struct pg_error *pipeline_fail(struct client *client, const struct pg_error *error);

/* The message at hand is to come again when nothing is ahead. */
static inline bool pipeline_stall(struct extended *ext)
{
    ext->stalled = true;
    return false;
}

/* ---- sql_prepare.c ---- */

/* In a Parse: an EXECUTE of one of the client's names is made one of the servers' names. Takes over the
 * reference and gives another. NULL: refused, the client was told. */
struct prepared *sql_prepare_parse(struct client *client, struct prepared *prepared);
/* Execute of SQL's PREPARE. False: try again later. */
bool sql_prepare_execute(struct client *client, struct prepared *prepared);

bool batch_read_params(struct client *client, const struct prepared *prepared,
                       const struct wire_bind *bind, struct params *params);
/* params NULL: not known (Describe). */
void batch_plan(struct client *client, const struct prepared *prepared, const struct params *params,
                struct plan *plan);

enum reach {
    REACH_READY,
    REACH_WAIT,  /* the message at hand is to be tried again later */
    REACH_FAILED /* the client was told */
};
/* Makes `shard`'s server the batch's. */
enum reach batch_reach(struct client *client, unsigned shard, enum node_class class);
/* The transaction block has failed before any server has heard of it: to one it would be a sound one. */
bool batch_fails_alone(const struct client *client);
/* Any server that can describe the statement. */
enum reach batch_reach_for_description(struct client *client, struct prepared *prepared);
/* Syncs the batch's server, so that all its answers come before what follows. */
void batch_settle(struct client *client);
/* True if leaving the batch's server would commit a part of what must be one transaction. */
bool batch_leaves_writes(const struct client *client);
COLD enum reach batch_refuse_two_shards(struct client *client);

/* ---- extended_bind.c and extended_run.c: messages; false: try again later ---- */

bool extended_parse(struct client *client, const struct incoming *message);
bool extended_bind(struct client *client, const struct incoming *message);
bool extended_describe(struct client *client, const struct incoming *message);
bool extended_execute(struct client *client, const struct incoming *message);

#endif

/*
 * session.h: what a logged-in client's messages do. The parts, each a file:
 *
 *   session.c      takes messages off the input and dispatches them; the request's begin and end
 *   simple.c       Query: plan, attach, send
 *   series.c       a Query of several statements that concern several shards: one by one
 *   function_call.c  FunctionCall: the same for a function known by number
 *   extended.c     Parse/Bind/Describe/Execute/Close/Flush/Sync batches
 *   statement.c    statements that are the session's own business (BEGIN, SET, ...), and what follows others
 *   transaction.c  the transaction block: savepoints, provisional settings, the end
 *   own_settings.c SET and SHOW of pgshunt.*
 *   attach.c       getting servers for a plan; BEGIN and settings sent ahead
 *   relay.c        a server's answers on their way to the client
 *   relay_error.c  ... and its errors: repeated after, hidden, told, or its last words
 *   scatter.c      answers of several shards made one
 */
#ifndef PGSHUNT_PROXY_SESSION_H
#define PGSHUNT_PROXY_SESSION_H

#include "pgshunt/error.h"
#include "pgshunt/wire.h"
#include "proxy/client.h"

struct cursor;

/* ---- session.c ---- */

/* Answers a client may leave unread before it is not listened to. */
#define OUTPUT_MAX 262144
/* Answers a server may owe before its client is not listened to. */
#define EXPECTS_MAX 1000

/* Works on whole messages in client->in followed by `data`; keeps what it cannot use yet. */
void session_input(struct client *client, const char *data, size_t len);
/* Works on what is in client->in, if the client is idle. */
void session_resume(struct client *client);
/* Starts/ends a request. The end detaches what is free, and goes on with further input. */
void session_begin_request(struct client *client);
void session_follow_schema(struct client *client); /* takes the newest snapshot */
/* Takes the newest configuration and map. Where it has servers, or a transaction, only if its shards are where
 * they were: else false, or (closed) its database is gone. */
COLD bool session_follow(struct client *client);
/* The same in a batch of the extended protocol, while nothing of it is on a server. */
COLD void session_follow_in_batch(struct client *client);
/* Idle in a transaction: its servers are given up, and it has failed. */
COLD void session_roll_back(struct client *client);
void session_end_request(struct client *client);
void session_count_request(struct client *client); /* for the statistics: it is answered */
/* Servers the client does not need to keep go back to their pools. */
void session_release_servers(struct client *client);
/* Gives back what the request has borrowed, and forgets it; `again` and `settings` are the caller's. */
void session_drop_request(struct client *client);
/* Processes a request's bytes again after its server was lost; `avoid` is the node that failed. */
COLD void session_repeat(struct client *client, const struct buffer *again, int attempts,
                         struct node *avoid);
/* Whether it can be asked again from the start without the client's noticing. */
bool session_may_repeat(const struct client *client, const struct prepared *prepared);
/* What it has on its servers beyond a transaction is lost with none of them. */
bool session_may_leave_servers(const struct client *client);
/*
 * What a request in a transaction asks was refused under an old map. Where the client has heard of nothing in it but its BEGIN, settings,
 * savepoints, and what its statements look like, and nothing of this request's answer is out, the transaction can begin again
 * elsewhere, with all of the request, and nobody sees the difference.
 */
bool session_may_begin_again(
    const struct client *client); /* as far as is known when a server joins */
COLD bool session_may_repeat_block(const struct client *client);
/* Its servers are given up, with all that was begun there; the request is asked again (session_ask_again()) by the caller. */
COLD void session_begin_again(struct client *client);
/* Asks again what was found to need it (request.repeat). */
COLD void session_ask_again(struct client *client);
/* A participant died in the middle: the request and the transaction fail. */
COLD void session_lost_server(struct client *client, struct server *server, const char *reason);
/* An error of our own for the request: also fails the transaction, in the way Postgres would. */
COLD void session_refuse(struct client *client, const struct pg_error *error);
/* An error that a server's loss caused: the transaction's state has been set already. */
COLD void session_fail(struct client *client, const struct pg_error *error);
/* Status byte the client is told in ReadyForQuery. */
char session_status(const struct client *client);
void session_ready(struct client *client); /* sends ReadyForQuery and ends the request */

/* A message of impossible length ends the session: true. */
COLD bool session_refuse_unusual_length(struct client *client, char type, uint32_t length);
static inline bool session_refuse_length(struct client *client, char type, uint32_t length)
{
    bool usual = length >= 4 && length <= WIRE_SMALL_MESSAGE_MAX;
    return !usual && session_refuse_unusual_length(client, type, length);
}
/* ... and one that does not belong between the rows of a COPY. */
COLD void session_copy_refuse(struct client *client, char type);

/* ---- session_seen.c ---- */

/* A write was acknowledged by this server. */
void session_wrote(struct client *client, const struct server *server);
/* It has answered a statement. */
void session_saw(struct client *client, const struct server *server);
/* A read of the shard goes to the primary because no replica is known to be fresh enough for it. True:
 * so it has been for long enough that asking the replicas is worth a wait. */
bool session_is_stuck(struct client *client, unsigned shard);
/* That was in vain: not again for some time. */
void session_stays_stuck(struct client *client, unsigned shard);
/* Nobody knows what was written and seen where: all of it, anywhere, up to now. */
void session_saw_anything(struct client *client);
/* What a replica of the shard must hold for this session's reads, for one of which this was said. */
void session_need(const struct client *client, unsigned shard, const struct route_wish *wish,
                  struct freshness_need *need);

/* ---- function_call.c ---- */
/* A FunctionCall message, header included. */
void function_call(struct client *client, const char *message, size_t len);
/* The server has answered it: what follows for the session. */
void function_call_completed(struct client *client, struct server *server);

/* ---- simple.c ---- */
void simple_query(struct client *client, const char *body, size_t len);
/* Goes on after a server was attached (or attaches the next one). */
void simple_continue(struct client *client);
/* A Query message to be processed again, into the request's (empty) `again`, if it is not there yet. */
void simple_again(const struct client *client, struct buffer *message);
/* Starts over with the same Query: what it waited for has come. */
void simple_start_over(struct client *client);
/* Plans once more, after the schema was read again. */
void simple_replan(struct client *client);
/* Carries out the statement or statements in client->request. */
void simple_run(struct client *client);
/* Answers the Query with this, and its ReadyForQuery. */
void simple_answer(struct client *client, struct buffer *answer);
/* The end of a transaction, on every server that has begun it. */
void statement_plan_end(struct client *client, bool commit, struct arena *arena, struct plan *plan);
/* COMMIT and its like when several servers are in the transaction: plans it for all. False: it is not
 * such a case. */
bool statement_broadcast(struct client *client, const struct statement *statement,
                         struct arena *arena, struct plan *plan);
/* pgshunt's own lines ahead of the server's EXPLAIN, as DataRows; none if it is no text EXPLAIN. */
void statement_explain_rows(struct client *client, const struct statement *statement,
                            const struct plan *plan, struct buffer *rows);

/* ---- sql_prepare.c: PREPARE and EXECUTE of SQL ---- */

/* What a Query has to do with names of prepared statements. */
/* Characters of the text that was sent behind so many are as many less in the client's own. */
struct text_shift {
    long behind, less;
};

struct sql_names {
    const struct statement *making; /* it is this PREPARE */
    struct prepared **uses;         /* it executes these */
    int nuses;
    struct statement *routed; /* it goes where this one goes; NULL: by its own text */
    const char *asked;        /* its text, as the client sent it */
    struct text_shift *shifts;
    int nshifts;
    bool in_place; /* the query is sent with the values in it: places in that are none in `asked` */
};
/* Maps the names in client->request. True: the Query is answered. */
bool sql_prepare_query(struct client *client);
/* On the server it goes to: what it needs goes ahead. True: it is answered without being sent. */
bool sql_prepare_attached(struct client *client, struct server *server, struct buffer *out);
void sql_prepare_sent(struct client *client, struct server *server, struct expect *expect);

/* ---- extended.c ---- */

/* One extended message or more: consumes from `data` what belongs to the batch and can be used now.
 * Returns the bytes consumed. */
size_t extended_input(struct client *client, const char *data, size_t len);
void extended_continue(struct client *client);
/* The batch's server answered a ReadyForQuery for it. */
void extended_synced(struct client *client);
/* ... for one that has others behind it (else false); `kept`: its bytes in request.again. */
bool extended_passed(struct client *client, size_t kept);
void extended_free(struct client *client);
COLD void extended_refuse(struct client *client, const struct pg_error *error);
COLD void extended_fail(struct client *client, const struct pg_error *error);
/* Forgets the batch under way (it will be processed again). */
void extended_reset(struct client *client);
/* A COPY FROM STDIN has begun: Postgres drops what was sent behind the Execute up to now. */
COLD void extended_copy_in(struct client *client, struct server *server);
/* A server answered a message of the batch with an error. */
COLD void extended_server_error(struct client *client);
/* The fan-out that was one Execute of the batch is over. */
void extended_scatter_done(struct client *client, bool failed);
/* SQL's DEALLOCATE of a name made by Parse. False: there is none. */
bool extended_deallocate(struct client *client, const char *name);
/* Undo of a client statement's definition (its Parse failed or was skipped). */
void extended_define(struct client *client, const char *name, struct prepared *prepared);
/* What the client knows by this name, of Parse or of SQL's PREPARE; NULL: nothing. */
struct prepared *extended_statement(const struct client *client, const char *name);
void extended_undefine(struct client *client, const char *name);
/* What the client calls it; NULL: nothing any more. */
const char *extended_name_of(const struct client *client, const struct prepared *prepared,
                             uint32_t hash);
/* Ahead of an end of the session: what the batch was asked is answered. False: try again later. */
COLD bool extended_answer_all(struct client *client);
/* Undo of its Close: the Close was skipped. */
void extended_restore(struct client *client, const char *name, struct prepared *prepared);
void extended_close_portals(struct client *client); /* their transaction is over */
bool extended_in_batch(const struct client *client);
/* ... that has messages on this server. */
bool extended_is_on(const struct client *client, const struct server *server);
/* ... in which something that may write was executed. */
bool extended_has_written(const struct client *client);
/* It prepares or describes what it runs (NULL: no matter), and is on its server as a whole. */
bool extended_may_repeat(const struct client *client, const struct prepared *prepared);
/* The batch is the first of which its transaction has anything to lose: whether it can be asked again as a whole, as far as is
 * known. */
bool extended_may_begin_again(const struct client *client);
/* Its server is about to be given up, the batch to be asked again: it takes nothing more till then. */
COLD void extended_leave_server(struct client *client);
/* A Query in a batch that waits for its next message: ends the batch. False: try again later. */
bool extended_end_for_query(struct client *client);
bool extended_skips(const struct client *client); /* everything up to Sync */
/* Sends what the batch has. True: answers are awaited. */
bool extended_push(struct client *client);
bool extended_takes_input(const struct client *client); /* the batch waits for its next message */
void extended_forget_all(struct client *client);        /* DISCARD ALL, DEALLOCATE ALL */

/* ---- transaction.c ---- */

void transaction_begin(struct client *client, const struct statement *statement);
/* BEGIN behind other statements of a pipeline or series: their transaction is the block's. */
void transaction_becomes_block(struct client *client, const struct statement *begin);
/* The transaction ended, on all its servers. */
void transaction_end(struct client *client, bool committed);
/* COMMIT or ROLLBACK AND CHAIN: the next one, of the same kind, has begun where this one was. */
COLD void transaction_chain(struct client *client, bool committed);
struct savepoint *transaction_savepoint(struct transaction *tx, const char *name); /* or NULL */
void transaction_add_savepoint(struct transaction *tx, const char *name);
void transaction_release_savepoint(struct transaction *tx, const char *name);
void transaction_rollback_to(struct client *client, const char *name);
void transaction_drop_savepoints(struct transaction *tx, int keep);
/* What a request does in it begins: transaction_go_back() brings it back here, where none of its servers is left. */
void transaction_note_place(struct transaction *tx);
COLD void transaction_go_back(struct client *client);
/* Everybody is to hear that the schema is another. */
void transaction_schema_changed(struct client *client);
/* A statement that changed the schema has succeeded. */
void transaction_follow_schema(struct client *client, const struct statement *statement);

/* ---- own_settings.c and statement.c ---- */

/* SET, RESET or SHOW of a pgshunt.* setting. */
bool statement_is_own(const struct statement *statement);

/* pool.mode "statement" knows no transaction blocks. */
bool statement_refused_by_mode(const struct client *client, const struct statement *statement,
                               struct pg_error *error);

/* Whether it fails, whatever it says, because the transaction has: as far as no server is to judge. */
bool statement_fails(const struct client *client, const struct statement *statement,
                     struct pg_error *error);

enum local_outcome {
    LOCAL_NO,      /* not the session's business: route it */
    LOCAL_DONE,    /* answered: bytes are in `answer` (without ReadyForQuery) */
    LOCAL_REFUSED, /* `error` says why */
    LOCAL_WAIT, /* the client is WAITING, and the statement is to be tried again when it goes on */
};
enum local_outcome own_setting_statement(struct client *client, const struct statement *statement,
                                         struct buffer *answer, struct pg_error *error);
enum local_outcome statement_local(struct client *client, const struct statement *statement,
                                   struct buffer *answer, struct pg_error *error);
/* A server has completed this statement (CommandComplete `tag`): what follows for the session.
 * `write`: the plan did not prove it a read. */
void statement_completed(struct client *client, struct server *server,
                         const struct statement *statement, const char *tag, bool write);
/* The transaction of statements outside a block ended on a server: their settings count now, or not. */
void statement_settle(struct client *client, struct server *server, bool committed);
/* What a portal's calls of set_config() will set: to be freed by the caller; NULL: nothing that is known. */
struct guc_pending *statement_set_configs(const struct prepared *prepared,
                                          const struct params *params);

/* ---- attach.c ---- */
enum attach { ATTACH_READY, ATTACH_WAITING, ATTACH_FAILED };
/* Gets a server of the shard and class for the client. FAILED: the request was refused already. */
enum attach attach_shard(struct client *client, unsigned shard, enum node_class class);
/* Whether attach_shard would find a node now. */
bool attach_has_node(struct client *client, unsigned shard, enum node_class class);
/* Whether a replica of the shard would do for its reads now. */
bool attach_has_replica(struct client *client, unsigned shard);
/* All shards of a fan-out plan. */
enum attach attach_all(struct client *client, const struct plan *plan);
/* For greeting a client: any node that answers, the primary of the first shard preferred. */
struct node *attach_choose_any(struct client *client, const char **why);
/* Puts settings and BEGIN ahead of a first statement into `out`, with their expectations. */
void attach_prefix(struct client *client, struct server *server, struct buffer *out);
void attach_route(struct client *client, struct statement *statement, const struct params *params,
                  struct arena *arena, struct plan *plan);
void attach_route_list(struct client *client, const struct statement_list *list,
                       struct arena *arena, struct plan *plan);
void attach_route_session(const struct client *client, struct route_session *session);

/* ---- relay.c ---- */
void relay_readable(struct server *server);

/* ---- scatter.c ---- */

/* Starts the plan of client->request (servers attached already). `extended`: how the client asked. */
struct scatter_ask {
    const struct statement *statement; /* for what follows its completion; NULL: several */
    bool describe;                     /* the client wants a RowDescription */
    bool quiet;                        /* no CommandComplete */
    bool silent; /* part of an extended batch: no ReadyForQuery, extended_scatter_done() instead */
    const struct params *params; /* extended: the client's, for queries with parameters */
    struct prepared *prepared;   /* extended: declared types */
    bool named;                  /* extended: the client prepared it under a name */
    const char *result_formats;  /* Bind's result format codes, count first; NULL: text */
    size_t result_formats_len;
};
void scatter_start(struct client *client, const struct scatter_ask *ask);
/* The same for a plan that gathers, whose rows are left in a cursor: of the portal, with its first
 * `max_rows` rows answered, or of DECLARE where `portal` is NULL. */
void scatter_start_portal(struct client *client, const struct scatter_ask *ask, const char *portal,
                          int32_t max_rows);
/* Makes a cursor that goes to work the fan-out under way (cursor.h). */
void scatter_start_cursor(struct client *client, struct cursor *cursor);
void scatter_message(struct server *server, char type, const char *body, size_t len);
void scatter_lost(struct client *client, struct server *server, const char *reason);
void scatter_drained(struct client *client);
/* What came from a shard in one go has been fed: merge and send. */
void scatter_pump(struct client *client);
/* Gives up a read whose answer nothing of was sent, servers included: it will be repeated. */
void scatter_abandon(struct client *client);
/* A COPY FROM STDIN over several shards waits for the client's rows, which it takes by itself. Returns the
 * bytes used. */
bool scatter_takes_copy(const struct client *client);
size_t scatter_copy_input(struct client *client, const char *data, size_t len);
void scatter_free(struct client *client);

#endif

/*
 * relay_internal.h: the walk over a server's answers, shared by the files that make it (relay*.c).
 */
#ifndef PGSHUNT_PROXY_RELAY_INTERNAL_H
#define PGSHUNT_PROXY_RELAY_INTERNAL_H

#include "pgshunt/error.h"
#include "pgshunt/wire.h"
#include "proxy/session.h"

enum verdict { FORWARD, DROP, LOST };

/* One walk over received bytes. */
struct walk {
    struct server *server;
    struct client *client; /* NULL: the server is idle or parked */
    const char *run; /* bytes not yet handed to the client, up to the message being looked at */
    bool ready;      /* the client's ReadyForQuery has come */
    bool fresh;      /* nothing was forwarded before this walk */
    struct conn_mark mark; /* ... in which the client's part began here */
    /* A ParameterDescription that answers of our own still have to go in front of: an error may follow, and
     * all of it be asked again. */
    const char *undecided;
    bool elsewhere; /* LOST: what is under way with it is to be asked again elsewhere */
    const char
        *passed; /* end of the last ReadyForQuery of a batch with others behind it; or NULL */
};

/* Puts bytes of our own behind what came before `at`. */
void relay_insert(struct walk *walk, const char *at, const struct buffer *bytes);
/* Leaves these bytes out of what the client gets. */
void relay_cut_out(struct walk *walk, const char *from, const char *to);
/* Hands over what is due up to `end`; a server is read no more when its client is too slow. */
void relay_finish_output(struct walk *walk, const char *end);

/* Answers of our own that head the queue, in front of `at`. */
void relay_insert_answers(struct walk *walk, const char *at);
/* Answers of our own whose turn has come. Asked around each message, it rarely finds one. */
static inline void relay_local_answers(struct walk *walk, const char *at)
{
    const struct expect *head = server_expected(walk->server);
    if (walk->undecided || (head && head->kind == EXPECT_LOCAL))
        relay_insert_answers(walk, at);
}

/* The server is of no use any more: `reason` is kept for its client. */
COLD enum verdict relay_lose(struct server *server, const char *reason);

/* Whether an ErrorResponse ('E') or a notice ('N') is the last thing that this server will say. */
/*
 * Postgres' "cached plan must not change result type": the server's copy of a statement (NULL: none) is out of
 * date, and so are those that other servers have. `*shape`: what it returns is not what it returned.
 */
bool relay_finds_outdated(struct server *server, struct prepared *prepared,
                          const struct pg_error *error, bool *shape);
bool relay_is_last_word(char type, const struct pg_error *error);
/* An ErrorResponse: its request is repeated, here or elsewhere, or the client hears of it. */
COLD enum verdict relay_error(struct walk *walk, const char *message, const char *body, size_t len);
/* The request was a guess (lookup.h), and its statement is complete without a row: it is asked again. */
COLD enum verdict relay_guess_failed(struct walk *walk, const char *message);
/* A shard's last words are the loss of that shard: its part of a fan-out may be repeated elsewhere. True:
 * these were. */
COLD bool relay_takes_leave(struct server *server, const char *at, uint32_t length);

#endif

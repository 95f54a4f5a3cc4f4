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
#include "proxy/names.h"
#include "proxy/session.h"

enum batch_state { BATCH_CLOSED, BATCH_OPEN, BATCH_SETTLING, BATCH_SCATTER, BATCH_FAILED, BATCH_SYNCING };

/* A Parse not yet answered: it waits for a server to be chosen by a Bind, a Describe or the Sync. */
struct held_parse {
    char *name;
    struct prepared *prepared; /* reference */
};

struct extended {
    struct names names;
    enum batch_state state;
    struct server *server;  /* has messages of this batch that are not synced; else NULL */
    struct buffer out;      /* for `server`, not sent yet */
    struct held_parse *held;
    int nheld;
    char **defined;         /* names defined in this batch, to be undone if it is repeated */
    int ndefined;
    bool executed_write;    /* an Execute that may write was sent to a server in this batch */
    bool failed;            /* a server reported an error in this batch */
};

#endif

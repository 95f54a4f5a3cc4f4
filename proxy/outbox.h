/*
 * outbox.h: the short messages of one turn of the loop, sent at its end.
 *
 *   events of a turn:   recv A   recv B   recv C             end of the turn
 *                          \        \        \                  |
 *                           post     post     post  ----------> send, send, send
 *
 * A turn that serves several connections reads and works on all of them first: this code and its data
 * then stay in the CPU's caches, where each send() in between, which runs through the whole of TCP on both
 * ends and wakes who waits there, would throw them out. A message waits for what the turn's other events
 * take to be read, and the last one not at all; a turn of one event, which is every turn of one client,
 * posts nothing.
 *
 * What is posted counts as sent: nobody waits for it, and a send that fails ends like one whose peer goes
 * right behind it, with the event that follows. Order within a connection is kept by conn.c, which delivers
 * what is posted before anything else happens to the connection's output.
 */
#ifndef PGSHUNT_PROXY_OUTBOX_H
#define PGSHUNT_PROXY_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "pgshunt/error.h"

struct conn;
struct outbox;

struct outbox *outbox_new(void);
void outbox_free(struct outbox *outbox); /* it is closed */

/* From here to outbox_close() it takes posts; that sends them. */
void outbox_open(struct outbox *outbox);
void outbox_close(struct outbox *outbox);
/* Takes a copy. False: it is closed, or the message is too long to be copied: to be sent as it is. */
MUST_CHECK bool outbox_post(struct outbox *outbox, struct conn *conn, const void *bytes,
                            size_t len);
/* Sends what is posted for this connection now. */
void outbox_deliver(struct outbox *outbox, struct conn *conn);

#endif

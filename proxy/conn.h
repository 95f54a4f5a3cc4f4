/*
 * conn.h: one non-blocking socket on a worker's loop, for clients and servers alike.
 *
 * The socket is registered once (poller.h) and stays registered for reading: a query costs no epoll_ctl.
 * The kernel tells of new bytes only, once; a read that filled its room, or an end that waits behind the
 * bytes, has the loop come by again (`unread`).
 * Sending goes straight to the kernel, or by the end of the loop's turn (outbox.h); what it does not take
 * waits in `out`, and only then write interest is armed. conn_close() is two-phase: the descriptor is
 * closed at once, the memory may be freed in the `closed` callback only, at the end of the loop's turn.
 *
 * TLS is a state of a connection (tls.h): one that has none pays a test of a pointer for it.
 */
#ifndef PGSHUNT_PROXY_CONN_H
#define PGSHUNT_PROXY_CONN_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "pgshunt/buffer.h"
#include "pgshunt/error.h"
#include "proxy/poller.h"

struct conn;
struct tcp_settings;
struct tls;

/* readable: bytes (or the end) can be read. drained: everything queued went out. negotiated: TLS is
 * there, or the peer has none and need not (conn->tls tells). broken: dead. */
enum conn_event {
    CONN_READABLE,
    CONN_DRAINED,
    CONN_WRITABLE_FIRST,
    CONN_NEGOTIATED,
    CONN_BROKEN,
};

struct conn {
    struct watch watch;
    int fd; /* -1 once closed */
    bool reading;
    bool writing;
    bool connecting; /* the first writable event tells that connect() ended */
    bool corked;     /* sends are collected until conn_uncork */
    bool broken;     /* a send failed; the event follows */
    bool unread;     /* more may be there than was read since the kernel told of it */
    bool hung_up;    /* the peer will send no more: an end follows the bytes */
    bool posted;     /* the outbox of its poller has something for it */
    bool wake;       /* bytes wait that make no socket readable: the loop comes by at once */
    struct tls *tls; /* owned; NULL: plain */
    struct buffer out;
    void (*on_event)(struct conn *conn, enum conn_event event);
    void (*on_closed)(struct conn *conn);
};

/* Takes over `fd` (non-blocking, its options set: tcp.h) and starts reading. False: could not be registered, fd is closed. */
MUST_CHECK bool conn_open(struct conn *conn, struct poller *poller, int fd,
                          void (*on_event)(struct conn *, enum conn_event));
/* Starts a non-blocking connect; CONN_WRITABLE_FIRST follows (or CONN_BROKEN). False: refused now. */
MUST_CHECK bool conn_connect(struct conn *conn, struct poller *poller,
                             const struct sockaddr *address, socklen_t length,
                             const struct tcp_settings *tcp,
                             void (*on_event)(struct conn *, enum conn_event));
/* Bytes read; 0: nothing now; -1: the peer is gone. */
ssize_t conn_recv(struct conn *conn, void *bytes, size_t len);
/* Sends or queues. False: the connection is broken (nothing more can be done with it). */
bool conn_send(struct conn *conn, const void *bytes, size_t len);
bool conn_sendv(struct conn *conn, const struct iovec *parts, int count);
/* For the outbox: what was posted goes to the kernel now. */
void conn_send_posted(struct conn *conn, const char *bytes, size_t len);
/* Collects what is sent until conn_uncork(), which sends it in one call. */
void conn_cork(struct conn *conn);
/* Sends what is queued, as far as it goes, unless that is being waited for. False: broken. */
bool conn_flush(struct conn *conn);
/* Has the loop deliver what waits inside. */
void conn_wake(struct conn *conn);
/* conn_recv, past TLS. */
ssize_t conn_recv_raw(struct conn *conn, void *bytes, size_t len);
bool conn_uncork(struct conn *conn);
/* How much is collected. */
struct conn_mark {
    size_t queued, plain;
};
struct conn_mark conn_mark(struct conn *conn);
/* All that was collected since is still here. */
bool conn_holds(const struct conn *conn, const struct conn_mark *mark);
/* ... and is forgotten. */
void conn_take_back(struct conn *conn, const struct conn_mark *mark);
void conn_set_reading(struct conn *conn, bool on);
static inline size_t conn_queued(const struct conn *conn)
{
    return buffer_length(&conn->out);
}
void conn_close(struct conn *conn, void (*on_closed)(struct conn *conn));
/* Leaves the poller without closing the socket, so that another one can conn_adopt() it. */
void conn_detach(struct conn *conn, void (*on_detached)(struct conn *conn));
MUST_CHECK bool conn_adopt(struct conn *conn, struct poller *poller);
static inline bool conn_is_open(const struct conn *conn)
{
    return conn->fd >= 0;
}

#endif

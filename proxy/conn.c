/* conn.c: sockets on a poller, read and written directly. */
#include "proxy/conn.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proxy/list.h"
#include "proxy/outbox.h"
#include "proxy/tcp.h"
#include "proxy/tls.h"

/* In a process with threads the C library wraps send() and recv() in two atomic exchanges each, for
 * pthread_cancel(), which nobody uses here: four times in every transaction, they show. */
static ssize_t direct_send(int fd, const void *bytes, size_t len)
{
    return syscall(SYS_sendto, fd, bytes, len, MSG_NOSIGNAL, NULL, 0);
}

static ssize_t direct_recv(int fd, void *bytes, size_t len)
{
    return syscall(SYS_recvfrom, fd, bytes, len, 0, NULL, NULL);
}

#define READ_EVENTS (EPOLLIN | EPOLLRDHUP)

static void socket_ready(struct watch *watch, uint32_t events);

static struct conn *conn_of(struct watch *watch)
{
    return list_entry(watch, struct conn, watch);
}

static void update_interest(struct conn *conn)
{
    /* A socket is writable at (nearly) any time: that brings the loop by for `wake`. */
    bool writable = conn->writing || conn->connecting || conn->wake;
    uint32_t interest = (conn->reading ? READ_EVENTS : 0) | (writable ? EPOLLOUT : 0);
    watch_change(&conn->watch, interest ? interest | EPOLLET : 0);
}

static bool open_fd(struct conn *conn, struct poller *poller, int fd, bool connecting,
                    void (*on_event)(struct conn *, enum conn_event))
{
    conn->fd = fd;
    conn->on_event = on_event;
    conn->corked = conn->broken = conn->writing = conn->unread = conn->hung_up = false;
    conn->posted = false;
    conn->connecting = connecting;
    conn->reading = !connecting;
    if (!watch_begin(&conn->watch, poller, fd, EPOLLET | (connecting ? EPOLLOUT : READ_EVENTS),
                     socket_ready)) {
        close(fd);
        conn->fd = -1;
        return false;
    }
    return true;
}

bool conn_open(struct conn *conn, struct poller *poller, int fd,
               void (*on_event)(struct conn *, enum conn_event))
{
    return open_fd(conn, poller, fd, false, on_event);
}

bool conn_connect(struct conn *conn, struct poller *poller, const struct sockaddr *address,
                  socklen_t length, const struct tcp_settings *tcp,
                  void (*on_event)(struct conn *, enum conn_event))
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    conn->fd = -1;
    if (fd < 0)
        return false;
    if (address->sa_family != AF_UNIX)
        tcp_tune_connection(fd, tcp);
    /* A unix socket may say EAGAIN when the server's backlog is full: a failure like any other. */
    if (connect(fd, address, length) != 0 && errno != EINPROGRESS) {
        close(fd);
        return false;
    }
    return open_fd(conn, poller, fd, true, on_event);
}

static void finish_connect(struct conn *conn)
{
    int failed = 0;
    socklen_t len = sizeof failed;
    getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &failed, &len);
    conn->connecting = false;
    if (failed) {
        conn->on_event(conn, CONN_BROKEN);
        return;
    }
    conn->reading = true;
    update_interest(conn);
    conn->on_event(conn, CONN_WRITABLE_FIRST);
}

/* Sends what is queued. True while the connection lives. */
static bool flush_queue(struct conn *conn)
{
    while (conn_queued(conn)) {
        ssize_t n = direct_send(conn->fd, buffer_head(&conn->out), conn_queued(conn));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return true;
        if (n < 0)
            return false;
        buffer_consume(&conn->out, (size_t)n);
    }
    buffer_release(&conn->out);
    return true;
}

static void drain(struct conn *conn)
{
    if (!flush_queue(conn)) {
        conn->broken = true;
        conn->on_event(conn, CONN_BROKEN);
        return;
    }
    if (conn_queued(conn))
        return;
    conn->writing = false;
    update_interest(conn);
    conn->on_event(conn, CONN_DRAINED);
}

static void tls_ready(struct conn *conn, uint32_t events)
{
    bool woken = conn->wake;
    if (woken) {
        conn->wake = false;
        update_interest(conn);
    }
    if ((woken || (events & EPOLLIN)) && conn_is_open(conn) && conn->reading)
        tls_readable(conn);
}

static void socket_ready(struct watch *watch, uint32_t events)
{
    struct conn *conn = conn_of(watch);
    if (conn->connecting) {
        finish_connect(conn);
        return;
    }
    if (events & EPOLLERR) {
        conn->on_event(conn, CONN_BROKEN);
        return;
    }
    if ((events & EPOLLOUT) && conn->writing)
        drain(conn);
    if (events & EPOLLIN) {
        conn->unread = true;
        conn->hung_up |= (events & (EPOLLRDHUP | EPOLLHUP)) != 0;
    }
    if (conn->tls)
        tls_ready(conn, events);
    else if ((events & EPOLLIN) && conn_is_open(conn) && conn->reading)
        conn->on_event(conn, CONN_READABLE);
    if (conn->unread && conn_is_open(conn) && conn->reading)
        watch_again(&conn->watch);
}

ssize_t conn_recv(struct conn *conn, void *bytes, size_t len)
{
    return conn->tls ? tls_recv(conn, bytes, len) : conn_recv_raw(conn, bytes, len);
}

ssize_t conn_recv_raw(struct conn *conn, void *bytes, size_t len)
{
    for (;;) {
        ssize_t n = direct_recv(conn->fd, bytes, len);
        if (n > 0) {
            conn->unread = (size_t)n == len || conn->hung_up;
            return n;
        }
        if (n < 0 && errno == EINTR)
            continue;
        conn->unread = false;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return 0;
        return -1;
    }
}

static void arm_writing(struct conn *conn)
{
    if (conn->writing || !conn_queued(conn))
        return;
    conn->writing = true;
    update_interest(conn);
}

static void queue_rest(struct conn *conn, const struct iovec *parts, int count, size_t sent)
{
    for (int i = 0; i < count; i++) {
        size_t skip = sent < parts[i].iov_len ? sent : parts[i].iov_len;
        sent -= skip;
        buffer_append(&conn->out, (const char *)parts[i].iov_base + skip, parts[i].iov_len - skip);
    }
}

void conn_send_posted(struct conn *conn, const char *bytes, size_t len)
{
    ssize_t n;
    conn->posted = false;
    do
        n = direct_send(conn->fd, bytes, len);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)len)
        return;
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
        conn->broken = true;
        return;
    }
    size_t sent = n < 0 ? 0 : (size_t)n;
    buffer_append(&conn->out, bytes + sent, len - sent);
    arm_writing(conn);
}

/* Ahead of whatever else happens to its output. */
static void deliver_posted(struct conn *conn)
{
    if (conn->posted)
        outbox_deliver(conn->watch.poller->outbox, conn);
}

static bool post(struct conn *conn, const struct iovec *part)
{
    const struct poller *poller = conn->watch.poller;
    conn->posted = poller && outbox_post(poller->outbox, conn, part->iov_base, part->iov_len);
    return conn->posted;
}

bool conn_sendv(struct conn *conn, const struct iovec *parts, int count)
{
    deliver_posted(conn);
    if (conn->tls)
        return tls_sendv(conn, parts, count);
    if (conn->broken || conn->fd < 0)
        return false;
    if (conn->corked || conn_queued(conn)) {
        queue_rest(conn, parts, count, 0);
        return true;
    }
    if (count == 1 && post(conn, parts))
        return true;
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    ssize_t n;
    do
        n = count == 1 ? direct_send(conn->fd, parts[0].iov_base, parts[0].iov_len)
                       : sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (count == 1 && n == (ssize_t)parts[0].iov_len) /* nearly always */
        return true;
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
        conn->broken = true;
        return false;
    }
    queue_rest(conn, parts, count, n < 0 ? 0 : (size_t)n);
    arm_writing(conn);
    return true;
}

bool conn_send(struct conn *conn, const void *bytes, size_t len)
{
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = len};
    return len == 0 || conn_sendv(conn, &part, 1);
}

void conn_cork(struct conn *conn)
{
    conn->corked = true;
}

bool conn_uncork(struct conn *conn)
{
    conn->corked = false;
    if (conn->tls && !tls_seal(conn))
        return false;
    return conn_flush(conn);
}

static struct conn_mark mark(const struct conn *conn)
{
    struct buffer *plain = conn->tls ? tls_collected(conn) : NULL;
    return (struct conn_mark){conn_queued(conn), plain ? buffer_length(plain) : 0};
}

struct conn_mark conn_mark(struct conn *conn)
{
    deliver_posted(conn); /* it would be queued behind the mark */
    return mark(conn);
}

bool conn_holds(const struct conn *conn, const struct conn_mark *then)
{
    struct conn_mark now = mark(conn);
    if (!conn->corked)
        return false;
    return conn->tls ? now.queued == then->queued && now.plain >= then->plain
                     : now.queued >= then->queued;
}

void conn_take_back(struct conn *conn, const struct conn_mark *then)
{
    struct buffer *out = conn->tls ? tls_collected(conn) : &conn->out;
    out->end = out->start + (conn->tls ? then->plain : then->queued);
}

bool conn_flush(struct conn *conn)
{
    deliver_posted(conn);
    if (conn->broken || conn->fd < 0)
        return false;
    if (conn->writing)
        return true;
    if (!flush_queue(conn)) {
        conn->broken = true;
        return false;
    }
    arm_writing(conn);
    return true;
}

void conn_set_reading(struct conn *conn, bool on)
{
    if (conn->fd < 0 || conn->reading == on || conn->connecting)
        return;
    conn->reading = on;
    if (conn->tls)
        conn->wake = on && tls_pending(conn);
    update_interest(conn);
}

void conn_wake(struct conn *conn)
{
    conn->wake = true;
    update_interest(conn);
}

static void watch_gone(struct watch *watch)
{
    struct conn *conn = conn_of(watch);
    conn->on_closed(conn);
}

void conn_close(struct conn *conn, void (*on_closed)(struct conn *conn))
{
    if (conn->fd < 0)
        return;
    deliver_posted(conn);
    conn->on_closed = on_closed;
    if (conn->tls)
        tls_close(conn);
    watch_end_closing(&conn->watch, watch_gone);
    close(conn->fd);
    conn->fd = -1;
    buffer_release(&conn->out);
}

void conn_detach(struct conn *conn, void (*on_detached)(struct conn *conn))
{
    deliver_posted(conn);
    conn->on_closed = on_detached;
    conn->reading = conn->wake = false;
    watch_end(&conn->watch, watch_gone);
}

bool conn_adopt(struct conn *conn, struct poller *poller)
{
    if (!open_fd(conn, poller, conn->fd, false, conn->on_event))
        return false;
    if (conn->tls && tls_pending(conn))
        conn_wake(conn);
    return true;
}

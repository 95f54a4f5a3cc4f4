/* conn.c: sockets on uv_poll, read and written directly. */
#include "proxy/conn.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proxy/tcp.h"
#include "proxy/tls.h"

static void poll_ready(uv_poll_t *handle, int status, int events);

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

static void update_interest(struct conn *conn)
{
    /* A socket is writable at (nearly) any time: that brings the loop by for `wake`. */
    bool writable = conn->writing || conn->connecting || conn->wake;
    int events = (conn->reading ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
    if (events)
        uv_poll_start(&conn->poll, events, poll_ready);
    else
        uv_poll_stop(&conn->poll);
}

static bool open_fd(struct conn *conn, uv_loop_t *loop, int fd, bool connecting,
                    void (*on_event)(struct conn *, enum conn_event))
{
    conn->fd = fd;
    conn->on_event = on_event;
    conn->corked = conn->broken = conn->writing = false;
    conn->connecting = connecting;
    conn->reading = !connecting;
    if (uv_poll_init(loop, &conn->poll, fd) != 0) {
        close(fd);
        conn->fd = -1;
        return false;
    }
    conn->poll.data = conn;
    update_interest(conn);
    return true;
}

bool conn_open(struct conn *conn, uv_loop_t *loop, int fd,
               void (*on_event)(struct conn *, enum conn_event))
{
    return open_fd(conn, loop, fd, false, on_event);
}

bool conn_connect(struct conn *conn, uv_loop_t *loop, const struct sockaddr *address,
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
    return open_fd(conn, loop, fd, true, on_event);
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

static void tls_ready(struct conn *conn, int events)
{
    bool woken = conn->wake;
    if (woken) {
        conn->wake = false;
        update_interest(conn);
    }
    if ((woken || (events & UV_READABLE)) && conn_is_open(conn) && conn->reading)
        tls_readable(conn);
}

static void poll_ready(uv_poll_t *handle, int status, int events)
{
    struct conn *conn = handle->data;
    if (status < 0 && conn->connecting) {
        finish_connect(conn);
        return;
    }
    if (status < 0) {
        conn->on_event(conn, CONN_BROKEN);
        return;
    }
    if (conn->connecting) {
        finish_connect(conn);
        return;
    }
    if ((events & UV_WRITABLE) && conn->writing)
        drain(conn);
    if (conn->tls)
        tls_ready(conn, events);
    else if ((events & UV_READABLE) && conn_is_open(conn) && conn->reading)
        conn->on_event(conn, CONN_READABLE);
}

ssize_t conn_recv(struct conn *conn, void *bytes, size_t len)
{
    return conn->tls ? tls_recv(conn, bytes, len) : conn_recv_raw(conn, bytes, len);
}

ssize_t conn_recv_raw(struct conn *conn, void *bytes, size_t len)
{
    for (;;) {
        ssize_t n = direct_recv(conn->fd, bytes, len);
        if (n > 0)
            return n;
        if (n < 0 && errno == EINTR)
            continue;
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

bool conn_sendv(struct conn *conn, const struct iovec *parts, int count)
{
    if (conn->tls)
        return tls_sendv(conn, parts, count);
    if (conn->broken || conn->fd < 0)
        return false;
    if (conn->corked || conn_queued(conn)) {
        queue_rest(conn, parts, count, 0);
        return true;
    }
    struct msghdr message = {.msg_iov = (struct iovec *)parts, .msg_iovlen = (size_t)count};
    ssize_t n;
    do
        n = count == 1 ? direct_send(conn->fd, parts[0].iov_base, parts[0].iov_len)
                       : sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
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

struct conn_mark conn_mark(const struct conn *conn)
{
    struct buffer *plain = conn->tls ? tls_collected(conn) : NULL;
    return (struct conn_mark){conn_queued(conn), plain ? buffer_length(plain) : 0};
}

bool conn_holds(const struct conn *conn, const struct conn_mark *mark)
{
    struct conn_mark now = conn_mark(conn);
    if (!conn->corked)
        return false;
    return conn->tls ? now.queued == mark->queued && now.plain >= mark->plain
                     : now.queued >= mark->queued;
}

void conn_take_back(struct conn *conn, const struct conn_mark *mark)
{
    struct buffer *out = conn->tls ? tls_collected(conn) : &conn->out;
    out->end = out->start + (conn->tls ? mark->plain : mark->queued);
}

bool conn_flush(struct conn *conn)
{
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

static void handle_closed(uv_handle_t *handle)
{
    struct conn *conn = handle->data;
    conn->on_closed(conn);
}

void conn_close(struct conn *conn, void (*on_closed)(struct conn *conn))
{
    if (conn->fd < 0)
        return;
    conn->on_closed = on_closed;
    if (conn->tls)
        tls_close(conn);
    /* libuv takes the descriptor off its list once more here: it must not be another thread's yet. */
    uv_close((uv_handle_t *)&conn->poll, handle_closed);
    close(conn->fd);
    conn->fd = -1;
    buffer_release(&conn->out);
}

void conn_detach(struct conn *conn, void (*on_detached)(struct conn *conn))
{
    conn->on_closed = on_detached;
    conn->reading = conn->wake = false;
    uv_poll_stop(&conn->poll);
    uv_close((uv_handle_t *)&conn->poll, handle_closed);
}

bool conn_adopt(struct conn *conn, uv_loop_t *loop)
{
    if (!open_fd(conn, loop, conn->fd, false, conn->on_event))
        return false;
    if (conn->tls && tls_pending(conn))
        conn_wake(conn);
    return true;
}

/*
 * monitor_conn.c: one libpq connection on a libuv loop, never blocking.
 *
 *   open -> CONNECTING -> IDLE <-> BUSY
 *                 \---------\-------\---> FAILED -> (close) -> CLOSED -> freed by the loop
 *
 * libpq may close its socket and open another while it connects (trying again without TLS), and the new
 * one may have the old one's number, which epoll does not survive unnoticed. So a duplicate of the
 * socket is polled, which is ours to close, and the socket's inode tells when it is another one.
 */
#include "proxy/monitor_internal.h"

#include <fcntl.h>
#include <netdb.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pgshunt/arena.h"
#include "pgshunt/db.h"

enum conn_state { CONN_CONNECTING, CONN_IDLE, CONN_BUSY, CONN_FAILED, CONN_CLOSED };

/* Lives until the loop has closed it, which may be after the connection has moved to another. */
struct socket_poll {
    uv_poll_t handle;
    struct monitor_conn *conn;
    int fd;     /* our duplicate */
    int events; /* listened for */
    ino_t inode;
};

struct monitor_conn {
    enum conn_state state;
    PGconn *pg; /* NULL once closed */
    uv_loop_t *loop;
    uv_timer_t timer; /* deadline of what is under way; also brings an early failure to the loop */
    struct socket_poll *poll;
    int handles; /* not yet closed by the loop: this struct goes with the last */
    int64_t timeout_ms;
    char problem[512]; /* found inside monitor_conn_open(), reported from the loop; "" none */
    const struct monitor_conn_events *events;
    void *arg;
};

static void on_poll(uv_poll_t *handle, int status, int events);
static void on_timer(uv_timer_t *timer);

/* ---- texts ---- */

/*
 * libpq's message in one line, without the LOCATION that verbose messages end with and without its
 * advice, which it indents by a tab ("Is the server running on that host ...?").
 */
static void one_line(const char *message, char *out, size_t size)
{
    size_t len = 0;
    const char *end = strstr(message, "\nLOCATION:");
    const char *advice = strstr(message, "\n\t");
    if (!end || (advice && advice < end))
        end = advice;
    if (!end)
        end = message + strlen(message);
    while (end > message && (end[-1] == '\n' || end[-1] == ' '))
        end--;
    for (const char *p = message; p < end && len + 1 < size; p++) {
        bool blank = *p == '\n' || *p == '\t' || *p == ' ';
        if (blank && len > 0 && out[len - 1] == ' ')
            continue;
        out[len++] = blank ? ' ' : *p;
    }
    out[len] = '\0';
}

/*
 * The SQLSTATE of a refused login. libpq has no function for it, but with PQERRORS_VERBOSE the text has
 * it between the (translated) severity and the message: "FATAL:  57P03: the database ...".
 */
static void find_sqlstate(const char *message, char out[6])
{
    out[0] = '\0';
    for (const char *p = strstr(message, ":  "); p; p = strstr(p + 1, ":  "))
        if (strspn(p + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && p[8] == ':') {
            memcpy(out, p + 3, 5);
            out[5] = '\0';
            return;
        }
}

static void ignore_notice(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result;
}

/* ---- handles ---- */

static void release(struct monitor_conn *conn)
{
    if (--conn->handles == 0)
        free(conn);
}

static void on_timer_closed(uv_handle_t *handle)
{
    release(handle->data);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct socket_poll *poll = handle->data;
    struct monitor_conn *conn = poll->conn;
    close(poll->fd);
    free(poll);
    release(conn);
}

static void drop_poll(struct monitor_conn *conn)
{
    if (!conn->poll)
        return;
    uv_poll_stop(&conn->poll->handle);
    uv_close((uv_handle_t *)&conn->poll->handle, on_poll_closed);
    conn->poll = NULL;
}

/* Makes `poll` stand for the socket libpq has now. */
static bool follow_socket(struct monitor_conn *conn)
{
    struct stat info;
    int fd = PQsocket(conn->pg);
    if (fd < 0 || fstat(fd, &info) != 0)
        return false;
    if (conn->poll && conn->poll->inode == info.st_ino)
        return true;
    drop_poll(conn);

    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return false;
    struct socket_poll *poll = mem_alloc(sizeof *poll);
    if (uv_poll_init(conn->loop, &poll->handle, copy) != 0) {
        close(copy);
        free(poll);
        return false;
    }
    poll->handle.data = poll;
    poll->conn = conn;
    poll->fd = copy;
    poll->inode = info.st_ino;
    conn->poll = poll;
    conn->handles++;
    return true;
}

static void listen_for(struct monitor_conn *conn, int events)
{
    if (conn->poll->events == events) /* libuv would ask the kernel anew */
        return;
    conn->poll->events = events;
    uv_poll_start(&conn->poll->handle, events, on_poll);
}

static void set_deadline(struct monitor_conn *conn, int64_t timeout_ms)
{
    conn->timeout_ms = timeout_ms > 0 ? timeout_ms : 1;
    uv_timer_start(&conn->timer, on_timer, (uint64_t)conn->timeout_ms, 0);
}

/* ---- failing and closing ---- */

static void fail(struct monitor_conn *conn, const char *message)
{
    char why[512], sqlstate[6];
    one_line(message, why, sizeof why);
    find_sqlstate(message, sqlstate);
    if (conn->state == CONN_CONNECTING && conn->pg && PQconnectionNeedsPassword(conn->pg))
        strcpy(sqlstate, "28P01"); /* libpq gave up itself, for want of one */
    conn->state = CONN_FAILED;
    uv_timer_stop(&conn->timer);
    drop_poll(conn);
    conn->events->failed(conn->arg, *why ? why : "connection lost", sqlstate);
}

/* A failure found while the caller is still on the stack is reported from the next turn of the loop. */
static void fail_later(struct monitor_conn *conn, const char *message)
{
    snprintf(conn->problem, sizeof conn->problem, "%s", *message ? message : "connection lost");
    uv_timer_start(&conn->timer, on_timer, 0, 0);
}

void monitor_conn_close(struct monitor_conn *conn)
{
    if (!conn || conn->state == CONN_CLOSED)
        return;
    conn->state = CONN_CLOSED;
    drop_poll(conn);
    uv_close((uv_handle_t *)&conn->timer, on_timer_closed);
    PQfinish(conn->pg);
    conn->pg = NULL;
}

/* ---- connecting ---- */

static void go_on_connecting(struct monitor_conn *conn)
{
    PostgresPollingStatusType status = PQconnectPoll(conn->pg);
    if (status == PGRES_POLLING_FAILED) {
        fail(conn, PQerrorMessage(conn->pg));
        return;
    }
    if (!follow_socket(conn)) {
        fail(conn, "cannot watch the connection's socket");
        return;
    }
    if (status != PGRES_POLLING_OK) {
        listen_for(conn, status == PGRES_POLLING_READING ? UV_READABLE : UV_WRITABLE);
        return;
    }
    uv_timer_stop(&conn->timer);
    conn->state = CONN_IDLE;
    PQsetnonblocking(conn->pg, 1);
    PQsetErrorVerbosity(conn->pg, PQERRORS_DEFAULT);
    listen_for(conn, UV_READABLE);
    conn->events->ready(conn->arg);
}

/* ---- queries ---- */

static void finish_query(struct monitor_conn *conn)
{
    conn->state = CONN_IDLE;
    uv_timer_stop(&conn->timer);
    conn->events->result(conn->arg, NULL);
}

/* Hands on what has arrived. False: the connection failed or was closed meanwhile. */
static bool take_results(struct monitor_conn *conn)
{
    while (conn->state == CONN_BUSY && !PQisBusy(conn->pg)) {
        PGresult *result = PQgetResult(conn->pg);
        if (!result) {
            finish_query(conn);
            continue;
        }
        conn->events->result(conn->arg, result);
        PQclear(result);
    }
    if (conn->state == CONN_IDLE) {
        PGnotify *notify;
        while ((notify = PQnotifies(conn->pg)))
            PQfreemem(notify);
    }
    return conn->state == CONN_IDLE || conn->state == CONN_BUSY;
}

/* Bytes decrypted already make no socket readable. */
static bool more_decrypted(struct monitor_conn *conn)
{
    SSL *ssl = PQgetssl(conn->pg);
    return ssl && SSL_pending(ssl) > 0;
}

static void flush(struct monitor_conn *conn)
{
    int left = PQflush(conn->pg);
    if (left < 0)
        fail_later(conn, PQerrorMessage(conn->pg));
    else
        listen_for(conn, left ? UV_READABLE | UV_WRITABLE : UV_READABLE);
}

static void read_and_write(struct monitor_conn *conn, int events)
{
    if (events & UV_READABLE) {
        do {
            if (!PQconsumeInput(conn->pg)) {
                fail(conn, PQerrorMessage(conn->pg));
                return;
            }
            if (!take_results(conn))
                return;
        } while (more_decrypted(conn));
        if (PQstatus(conn->pg) == CONNECTION_BAD) {
            fail(conn, PQerrorMessage(conn->pg));
            return;
        }
    }
    flush(conn);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct socket_poll *poll = handle->data;
    struct monitor_conn *conn = poll->conn;
    if (conn->poll != poll || *conn->problem)
        return; /* of a socket given up, or already failed */
    if (status < 0) {
        /* An error on the socket: libpq finds out which when it tries. */
        events = UV_READABLE;
    }
    if (conn->state == CONN_CONNECTING)
        go_on_connecting(conn);
    else if (conn->state == CONN_IDLE || conn->state == CONN_BUSY)
        read_and_write(conn, events);
}

static void on_timer(uv_timer_t *timer)
{
    struct monitor_conn *conn = timer->data;
    char text[64];
    if (*conn->problem) {
        fail(conn, conn->problem);
        return;
    }
    snprintf(text, sizeof text, "%s timed out after %lld ms",
             conn->state == CONN_CONNECTING ? "connecting" : "query", (long long)conn->timeout_ms);
    fail(conn, text);
}

static void sent(struct monitor_conn *conn, int ok, int64_t timeout_ms)
{
    conn->state = CONN_BUSY;
    if (!ok) {
        fail_later(conn, PQerrorMessage(conn->pg));
        return;
    }
    set_deadline(conn, timeout_ms);
    flush(conn);
}

void monitor_conn_query(struct monitor_conn *conn, const char *sql, bool by_row, int64_t timeout_ms)
{
    int ok = PQsendQuery(conn->pg, sql);
    if (ok && by_row)
        ok = PQsetSingleRowMode(conn->pg);
    sent(conn, ok, timeout_ms);
}

void monitor_conn_query_with(struct monitor_conn *conn, const char *sql, const char *value,
                             int64_t timeout_ms)
{
    int ok = PQsendQueryParams(conn->pg, sql, 1, NULL, &value, NULL, NULL, 0);
    sent(conn, ok, timeout_ms);
}

void monitor_conn_prepare(struct monitor_conn *conn, const char *name, const char *sql,
                          int64_t timeout_ms)
{
    sent(conn, PQsendPrepare(conn->pg, name, sql, 0, NULL), timeout_ms);
}

void monitor_conn_execute(struct monitor_conn *conn, const char *name, int64_t timeout_ms)
{
    sent(conn, PQsendQueryPrepared(conn->pg, name, 0, NULL, NULL, NULL, 0), timeout_ms);
}

void monitor_conn_execute_with(struct monitor_conn *conn, const char *name, const char *value,
                               int64_t timeout_ms)
{
    sent(conn, PQsendQueryPrepared(conn->pg, name, 1, &value, NULL, NULL, 0), timeout_ms);
}

/* ---- opening ---- */

struct monitor_login monitor_login_as(const struct config *config, const char *user,
                                      const char *password, const char *dbname,
                                      const char *application)
{
    struct monitor_login login = {user, password, application, dbname, config};
    if (!login.password || !*login.password) {
        const struct user_config *known = config_user(config, login.user);
        login.password = known && known->secret ? known->secret : "";
        /* A stored SCRAM or md5 secret proves a password, it is none. */
        if (strncmp(login.password, "SCRAM-SHA-256$", 14) == 0 ||
            (strncmp(login.password, "md5", 3) == 0 && strlen(login.password) == 35))
            login.password = "";
    }
    return login;
}

struct monitor_login monitor_login(const struct config *config, const char *application)
{
    return monitor_login_as(config, config->monitor_user, config->monitor_password, NULL,
                            application);
}

/*
 * Everything that libpq would otherwise take from the environment and that could surprise is said here.
 * search_path: the queries name catalog functions, and nobody shall put others before them.
 */
static PGconn *start(struct node *node, const struct monitor_login *login, int64_t timeout_ms)
{
    struct sockaddr_storage address;
    socklen_t length;
    char port[16], timeout[32], hostaddr[NI_MAXHOST] = "";
    if (!node_address(node, &address, &length))
        return NULL;
    if (address.ss_family != AF_UNIX && getnameinfo((struct sockaddr *)&address, length, hostaddr,
                                                    sizeof hostaddr, NULL, 0, NI_NUMERICHOST) != 0)
        return NULL;
    snprintf(port, sizeof port, "%d", node->port);
    snprintf(timeout, sizeof timeout, "%lld", (long long)timeout_ms);
    struct db_parameters list = {.count = 0};
    db_put(&list, "host", node->host);
    db_put(&list, "hostaddr", hostaddr);
    db_put(&list, "port", port);
    db_put(&list, "dbname", login->dbname && *login->dbname ? login->dbname : node->dbname);
    db_put(&list, "user", login->user);
    db_put(&list, "password", login->password);
    db_put(&list, "application_name", login->application);
    db_put(&list, "client_encoding", "UTF8");
    db_put(&list, "options", "-csearch_path=pg_catalog -cdatestyle=ISO");
    db_put(&list, "gssencmode", "disable");
    db_put(&list, "target_session_attrs", "any");
    db_put(&list, "keepalives", "1");
    db_put(&list, "keepalives_idle", "5");
    db_put(&list, "keepalives_interval", "2");
    db_put(&list, "keepalives_count", "3");
    db_put(&list, "tcp_user_timeout", timeout);
    db_put(&list, "replication", "false");
    db_put_tls(&list, config_server_tls(login->config, NULL, node->host, node->port, node->dbname));
    return PQconnectStartParams(list.names, list.values, 0);
}

struct monitor_conn *monitor_conn_open(uv_loop_t *loop, struct node *node,
                                       const struct monitor_login *login, int64_t timeout_ms,
                                       const struct monitor_conn_events *events, void *arg)
{
    struct monitor_conn *conn = mem_alloc(sizeof *conn);
    conn->loop = loop;
    conn->events = events;
    conn->arg = arg;
    conn->state = CONN_CONNECTING;
    uv_timer_init(loop, &conn->timer);
    conn->timer.data = conn;
    conn->handles = 1;

    conn->pg = start(node, login, timeout_ms);
    if (!conn->pg) {
        fail_later(conn, "the node's address is not known");
    } else if (PQstatus(conn->pg) == CONNECTION_BAD) {
        fail_later(conn, PQerrorMessage(conn->pg));
    } else if (!follow_socket(conn)) {
        fail_later(conn, "cannot watch the connection's socket");
    } else {
        PQsetNoticeReceiver(conn->pg, ignore_notice, NULL);
        PQsetErrorVerbosity(conn->pg, PQERRORS_VERBOSE);
        set_deadline(conn, timeout_ms);
        listen_for(conn, UV_WRITABLE);
    }
    return conn;
}

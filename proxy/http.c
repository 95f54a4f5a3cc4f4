/*
 * http.c: the HTTP server: libmicrohttpd on a thread of its own.
 *
 *   request --> report_start --> worker 1 --> worker 2 ... --> report_came --signal--> answer
 *                                                                  |
 *                              waited for too long: 503 <----------'  the report is freed when it comes
 */
#include "proxy/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pgshunt/log.h"
#include "proxy/listen_points.h"
#include "proxy/report.h"

#define WAIT_SECONDS 2
#define CONNECTIONS_MAX 64
#define CONNECTION_TIMEOUT 10   /* seconds without a byte */
#define CONNECTION_MEMORY 16384 /* request line and headers */
#define UPLOAD_MAX 65536        /* bytes of a body thrown away before its sender is told */

#define PLAIN "text/plain; charset=utf-8"
#define METRICS "text/plain; version=0.0.4; charset=utf-8"
#define JSON "application/json"

/* One address that is listened on. */
struct http_point {
    struct MHD_Daemon *server;
    int listener; /* -1: handed over */
};

struct http {
    struct daemon *daemon;
    struct http_point points[HTTP_POINTS_MAX];
    int count;
    atomic_bool stopping;
};

/* ---- waiting for a report ---- */

/* Shared by who waits and who brings the report; the last of them frees it. */
struct waiter {
    pthread_mutex_t lock;
    pthread_cond_t come;
    struct report *report; /* NULL: not yet */
    int references;
};

static void waiter_unref(struct waiter *waiter)
{
    pthread_mutex_lock(&waiter->lock);
    bool last = --waiter->references == 0;
    pthread_mutex_unlock(&waiter->lock);
    if (!last)
        return;
    if (waiter->report)
        report_free(waiter->report);
    pthread_cond_destroy(&waiter->come);
    pthread_mutex_destroy(&waiter->lock);
    free(waiter);
}

static struct waiter *waiter_new(void)
{
    struct waiter *waiter = mem_alloc(sizeof *waiter);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&waiter->come, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&waiter->lock, NULL);
    waiter->references = 2;
    return waiter;
}

/* On a worker's thread. */
static void report_came(struct report *report, void *arg)
{
    struct waiter *waiter = arg;
    pthread_mutex_lock(&waiter->lock);
    waiter->report = report;
    pthread_cond_signal(&waiter->come);
    pthread_mutex_unlock(&waiter->lock);
    waiter_unref(waiter);
}

/* NULL: the workers did not answer in time. The caller frees the report. */
static struct report *get_report(struct http *http, unsigned parts)
{
    struct waiter *waiter = waiter_new();
    struct timespec limit;
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_sec += WAIT_SECONDS;
    report_start(http->daemon, NULL, parts, report_came, waiter);
    pthread_mutex_lock(&waiter->lock);
    int failed = 0;
    while (!waiter->report && failed != ETIMEDOUT)
        failed = pthread_cond_timedwait(&waiter->come, &waiter->lock, &limit);
    struct report *report = waiter->report;
    waiter->report = NULL;
    pthread_mutex_unlock(&waiter->lock);
    waiter_unref(waiter);
    return report;
}

/* ---- pages ---- */

struct answer {
    unsigned status;
    const char *type;
    struct buffer body;
};

static void page_metrics(const struct report *report, struct answer *answer)
{
    answer->type = METRICS;
    metrics_write(report, &answer->body);
}

static void page_healthz(const struct report *report, struct answer *answer)
{
    (void)report;
    buffer_printf(&answer->body, "ok\n");
}

static void page_readyz(const struct report *report, struct answer *answer)
{
    if (report_ready(report, &answer->body))
        buffer_printf(&answer->body, "ready\n");
    else
        answer->status = MHD_HTTP_SERVICE_UNAVAILABLE;
}

static void page_status(const struct report *report, struct answer *answer)
{
    char *json = report_json(report);
    answer->type = JSON;
    buffer_printf(&answer->body, "%s\n", json ? json : "{}");
    free(json);
}

static const struct page {
    const char *path;
    const char *help;
    void (*write)(const struct report *report, struct answer *answer);
} pages[] = {
    {"/metrics", "for Prometheus", page_metrics},
    {"/healthz", "200 while the workers answer", page_healthz},
    {"/readyz", "200 while every shard that owns anything has a primary and pgshunt takes clients",
     page_readyz},
    {"/api/status", "databases, shards, nodes, pools and counters as JSON", page_status},
};

#define PAGES (sizeof pages / sizeof pages[0])

static const struct page *find_page(const char *path)
{
    for (size_t i = 0; i < PAGES; i++)
        if (strcmp(pages[i].path, path) == 0)
            return &pages[i];
    return NULL;
}

static void page_not_found(struct answer *answer)
{
    answer->status = MHD_HTTP_NOT_FOUND;
    buffer_printf(&answer->body, "There is no such page. There are:\n");
    for (size_t i = 0; i < PAGES; i++)
        buffer_printf(&answer->body, "  %-12s %s\n", pages[i].path, pages[i].help);
}

static void make_page(struct http *http, const struct page *page, struct answer *answer)
{
    struct report *report = get_report(http, REPORT_SUMS);
    if (report) {
        page->write(report, answer);
        report_free(report);
        return;
    }
    answer->status = MHD_HTTP_SERVICE_UNAVAILABLE;
    buffer_printf(&answer->body, "the workers did not answer within %d seconds\n", WAIT_SECONDS);
    if (!atomic_load(&http->stopping))
        log_event(LOG_WARNING, "the workers did not answer a report in time",
                  LOG_S("page", page->path));
}

/* ---- requests ---- */

static bool is_read(const char *method)
{
    return strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
}

static enum MHD_Result send_answer(struct MHD_Connection *connection, struct answer *answer)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        buffer_length(&answer->body), buffer_head(&answer->body), MHD_RESPMEM_MUST_COPY);
    buffer_release(&answer->body);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (answer->status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, answer->status, response);
    MHD_destroy_response(response);
    return result;
}

static void answer_request(struct http *http, const char *path, const char *method,
                           struct answer *answer)
{
    const struct page *page = find_page(path);
    if (!page) {
        page_not_found(answer);
    } else if (!is_read(method)) {
        answer->status = MHD_HTTP_METHOD_NOT_ALLOWED;
        buffer_printf(&answer->body, "%s is for GET only\n", page->path);
    } else {
        make_page(http, page, answer);
    }
}

/* One request's state: bytes of its body read so far. */
struct request_state {
    size_t upload;
};

static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *path,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
    struct request_state *request = *state;
    struct answer answer = {.status = MHD_HTTP_OK, .type = PLAIN};
    (void)version;
    (void)upload;
    if (!request) { /* headers are here, the body (if any) follows */
        *state = mem_alloc(sizeof *request);
        return MHD_YES;
    }
    if (*upload_size) {
        /* No page takes a body. A short one is read, so that its sender sees the answer. */
        request->upload += *upload_size;
        *upload_size = 0;
        return request->upload > UPLOAD_MAX ? MHD_NO : MHD_YES;
    }
    answer_request(arg, path, method, &answer);
    return send_answer(connection, &answer);
}

static void forget_request(void *arg, struct MHD_Connection *connection, void **state,
                           enum MHD_RequestTerminationCode how)
{
    (void)arg;
    (void)connection;
    (void)how;
    free(*state);
    *state = NULL;
}

/* ---- start and stop ---- */

__attribute__((format(printf, 2, 0))) static void log_problem(void *arg, const char *format,
                                                              va_list args)
{
    char text[512];
    (void)arg;
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    log_event(LOG_DEBUG, "http", LOG_S("problem", text));
}

static int open_listener(const struct listen_points *points, const struct listen_point *point)
{
    int fd = socket(point->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listen_points_split(points, point))
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)&point->address, point->length) == 0 &&
        listen(fd, SOMAXCONN) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* Whether the socket is bound to just this. */
static bool listens_on(int fd, const struct listen_point *point)
{
    struct sockaddr_storage bound = {0};
    socklen_t length = sizeof bound;
    return getsockname(fd, (struct sockaddr *)&bound, &length) == 0 &&
           listen_point_is(point, &bound, length);
}

/* The one that was taken over, else a new one. */
static int find_listener(struct http_sockets *inherited, const struct listen_points *points,
                         const struct listen_point *point)
{
    for (int i = 0; i < inherited->count; i++)
        if (listens_on(inherited->fds[i], point)) {
            int fd = inherited->fds[i];
            inherited->fds[i] = inherited->fds[--inherited->count];
            return fd;
        }
    return open_listener(points, point);
}

static struct MHD_Daemon *listen_on(struct http *http, int listener, int family)
{
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL | MHD_USE_ITC |
                     MHD_USE_ERROR_LOG | (family == AF_INET6 ? MHD_USE_IPv6 : 0);
    return MHD_start_daemon(
        flags, 0, NULL, NULL, handle, http, MHD_OPTION_EXTERNAL_LOGGER, log_problem, NULL,
        MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_NOTIFY_COMPLETED, forget_request, NULL,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)CONNECTION_TIMEOUT, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_END);
}

/* A machine without IPv6 still listens at what "localhost" is in IPv4. */
static bool may_do_without(const struct listen_point *point, int problem)
{
    return point->optional && (problem == EAFNOSUPPORT || problem == EADDRNOTAVAIL);
}

static bool start_point(struct http *http, struct http_sockets *inherited,
                        const struct listen_points *points, const struct listen_point *point,
                        char *error, size_t size)
{
    char name[300];
    struct http_point *added = &http->points[http->count];
    int fd = find_listener(inherited, points, point), problem = errno;
    if (fd < 0 && may_do_without(point, problem))
        return true;
    if (fd >= 0 && (added->server = listen_on(http, fd, point->address.ss_family))) {
        added->listener = fd;
        http->count++;
        return true;
    }
    listen_point_name(point, name, sizeof name);
    snprintf(error, size, "cannot listen for HTTP on %s: %s", name,
             fd < 0 ? strerror(problem) : "libmicrohttpd refused");
    if (fd >= 0)
        close(fd);
    return false;
}

static bool start_points(struct http *http, const char *addresses, int port,
                         struct http_sockets *inherited, char *error, size_t size)
{
    struct listen_points points = {.setting = "http.address"};
    if (!listen_points_add(&points, addresses, port, LISTEN_PLAIN, error, size))
        return false;
    if (points.count > HTTP_POINTS_MAX) {
        snprintf(error, size, "http.address stands for more than %d addresses", HTTP_POINTS_MAX);
        return false;
    }
    for (int i = 0; i < points.count; i++)
        if (!start_point(http, inherited, &points, &points.points[i], error, size))
            return false;
    if (!http->count)
        snprintf(error, size, "http.address \"%s\" stands for no address that is here", addresses);
    return http->count > 0;
}

struct http *http_start(struct daemon *daemon, const char *addresses, int port,
                        struct http_sockets *inherited, char *error, size_t size)
{
    struct http *http = mem_alloc(sizeof *http);
    http->daemon = daemon;
    bool started = start_points(http, addresses, port, inherited, error, size);
    http_sockets_close(inherited);
    if (started)
        return http;
    http_stop(http);
    return NULL;
}

void http_sockets_close(struct http_sockets *sockets)
{
    while (sockets->count)
        close(sockets->fds[--sockets->count]);
}

int http_listeners(const struct http *http, int fds[HTTP_POINTS_MAX])
{
    int count = 0;
    for (int i = 0; http && i < http->count; i++)
        if (http->points[i].listener >= 0)
            fds[count++] = http->points[i].listener;
    return count;
}

void http_quiesce(struct http *http)
{
    for (int i = 0; i < http->count; i++) {
        struct http_point *point = &http->points[i];
        if (point->listener < 0)
            continue;
        MHD_quiesce_daemon(point->server);
        close(point->listener);
        point->listener = -1;
    }
}

void http_stop(struct http *http)
{
    atomic_store(&http->stopping, true);
    http_quiesce(http); /* else libmicrohttpd might shut the sockets down for others too */
    for (int i = 0; i < http->count; i++)
        MHD_stop_daemon(http->points[i].server);
    free(http);
}

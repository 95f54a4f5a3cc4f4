/*
 * relay.c: a bare TCP relay, the floor that `make bench` measures pgshunt against.
 *
 *     relay --listen [HOST:]PORT --to HOST:PORT [--workers N]
 *
 * It does what no proxy can do without: take bytes from one socket and give them to another. One
 * upstream connection per client, one recv and one send per piece, no epoll_ctl while both sides keep
 * up. Each worker is a thread with its own loop and SO_REUSEPORT listener. What a peer does not take
 * at once is kept (at most one piece) and its other side is not read until it is gone.
 */
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <uv.h>

#define PIECE 65536
#define WORKERS_MAX 256

struct worker {
    pthread_t thread;
    uv_loop_t loop;
    uv_poll_t listener;
    uv_async_t stop;
    int listen_fd;
    const struct addrinfo *to;
    char piece[PIECE]; /* what was just read; empty between callbacks */
};

struct pair;

struct side {
    uv_poll_t poll;
    struct pair *pair;
    struct side *peer;
    int fd;
    int events;    /* what poll waits for */
    bool eof;      /* nothing more comes from here */
    bool finished; /* the peer's end was passed on to here */
    char *unsent;  /* owned: bytes of the peer's for this side; NULL: none */
    size_t unsent_at, unsent_end;
};

struct pair {
    struct worker *worker;
    struct side client, server;
    bool connecting; /* the server side is not there yet: nothing is read */
    bool closing;
    int handles; /* not closed yet; the last one frees the pair */
};

static void die(const char *what)
{
    fprintf(stderr, "relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- pairs ---- */

static void on_side_closed(uv_handle_t *handle)
{
    struct side *side = handle->data;
    struct pair *pair = side->pair;
    close(side->fd);
    free(side->unsent);
    if (--pair->handles == 0)
        free(pair);
}

static void pair_close(struct pair *pair)
{
    if (pair->closing)
        return;
    pair->closing = true;
    uv_close((uv_handle_t *)&pair->client.poll, on_side_closed);
    uv_close((uv_handle_t *)&pair->server.poll, on_side_closed);
}

/* Bytes sent, 0 if the socket takes none now, -1 if it is broken. */
static ssize_t send_some(struct side *to, const char *bytes, size_t len)
{
    ssize_t sent = send(to->fd, bytes, len, MSG_NOSIGNAL);
    if (sent >= 0)
        return sent;
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static bool keep_unsent(struct side *to, const char *bytes, size_t len)
{
    to->unsent = malloc(len);
    if (!to->unsent)
        return false;
    memcpy(to->unsent, bytes, len);
    to->unsent_at = 0;
    to->unsent_end = len;
    return true;
}

static bool flush_unsent(struct side *to)
{
    ssize_t sent = send_some(to, to->unsent + to->unsent_at, to->unsent_end - to->unsent_at);
    if (sent < 0)
        return false;
    to->unsent_at += (size_t)sent;
    if (to->unsent_at == to->unsent_end) {
        free(to->unsent);
        to->unsent = NULL;
    }
    return true;
}

/* Only called while the peer has nothing unsent. */
static bool forward(struct side *from)
{
    char *piece = from->pair->worker->piece;
    ssize_t got = recv(from->fd, piece, PIECE, 0);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (got == 0) {
        from->eof = true;
        return true;
    }
    ssize_t sent = send_some(from->peer, piece, (size_t)got);
    if (sent < 0)
        return false;
    return sent == got || keep_unsent(from->peer, piece + sent, (size_t)(got - sent));
}

static void pass_end_on(struct side *to)
{
    if (!to->peer->eof || to->unsent || to->finished)
        return;
    to->finished = true;
    shutdown(to->fd, SHUT_WR);
}

static bool finish_connect(struct pair *pair)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(pair->server.fd, SOL_SOCKET, SO_ERROR, &error, &len) || error)
        return false;
    pair->connecting = false;
    return true;
}

static bool side_work(struct side *side, int events)
{
    struct pair *pair = side->pair;
    if ((events & UV_WRITABLE) && pair->connecting && !finish_connect(pair))
        return false;
    if ((events & UV_WRITABLE) && side->unsent && !flush_unsent(side))
        return false;
    if ((events & UV_READABLE) && !side->eof && !side->peer->unsent && !forward(side))
        return false;
    return true;
}

static void on_side(uv_poll_t *poll, int status, int events);

static void side_wait(struct side *side)
{
    struct pair *pair = side->pair;
    int events = 0;
    if (!pair->connecting && !side->eof && !side->peer->unsent)
        events |= UV_READABLE;
    if (side->unsent || (pair->connecting && side == &pair->server))
        events |= UV_WRITABLE;
    if (events == side->events)
        return;
    side->events = events;
    if (events)
        uv_poll_start(&side->poll, events, on_side);
    else
        uv_poll_stop(&side->poll);
}

static void on_side(uv_poll_t *poll, int status, int events)
{
    struct side *side = poll->data;
    struct pair *pair = side->pair;
    if (status < 0 || !side_work(side, events)) {
        pair_close(pair);
        return;
    }
    pass_end_on(&pair->client);
    pass_end_on(&pair->server);
    if (pair->client.finished && pair->server.finished) {
        pair_close(pair);
        return;
    }
    side_wait(&pair->client);
    side_wait(&pair->server);
}

static void side_init(struct side *side, struct side *peer, struct pair *pair, int fd)
{
    int one = 1;
    side->pair = pair;
    side->peer = peer;
    side->fd = fd;
    side->poll.data = side;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (uv_poll_init(&pair->worker->loop, &side->poll, fd))
        die("uv_poll_init");
    pair->handles++;
}

static void pair_open(struct worker *worker, int client_fd)
{
    int fd = socket(worker->to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    if (connect(fd, worker->to->ai_addr, worker->to->ai_addrlen) && errno != EINPROGRESS) {
        close(fd);
        close(client_fd);
        return;
    }
    struct pair *pair = calloc(1, sizeof(*pair));
    if (!pair)
        die("calloc");
    pair->worker = worker;
    pair->connecting = true;
    side_init(&pair->client, &pair->server, pair, client_fd);
    side_init(&pair->server, &pair->client, pair, fd);
    side_wait(&pair->server);
}

/* ---- workers ---- */

static void on_listener(uv_poll_t *poll, int status, int events)
{
    struct worker *worker = poll->data;
    (void)events;
    if (status < 0)
        die("listener");
    for (;;) {
        int fd = accept4(worker->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            pair_open(worker, fd);
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR && errno != ECONNABORTED)
            die("accept");
    }
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    struct worker *worker = arg;
    if (uv_is_closing(handle))
        return;
    if (handle == (uv_handle_t *)&worker->listener || handle == (uv_handle_t *)&worker->stop)
        uv_close(handle, NULL);
    else
        pair_close(((struct side *)handle->data)->pair);
}

static void on_stop(uv_async_t *async)
{
    uv_walk(async->loop, close_handle, async->data);
}

static void *worker_run(void *arg)
{
    struct worker *worker = arg;
    uv_run(&worker->loop, UV_RUN_DEFAULT);
    uv_loop_close(&worker->loop);
    close(worker->listen_fd);
    return NULL;
}

static int listen_on(const struct addrinfo *at)
{
    int one = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) ||
        bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, 1024))
        die("listen");
    return fd;
}

static void worker_start(struct worker *worker, const struct addrinfo *at,
                         const struct addrinfo *to)
{
    worker->to = to;
    worker->listen_fd = listen_on(at);
    worker->listener.data = worker;
    worker->stop.data = worker;
    if (uv_loop_init(&worker->loop) || uv_async_init(&worker->loop, &worker->stop, on_stop) ||
        uv_poll_init(&worker->loop, &worker->listener, worker->listen_fd) ||
        uv_poll_start(&worker->listener, UV_READABLE, on_listener))
        die("event loop");
    errno = pthread_create(&worker->thread, NULL, worker_run, worker);
    if (errno)
        die("thread");
}

/* ---- command line ---- */

static void usage(int status)
{
    fprintf(status ? stderr : stdout,
            "usage: relay --listen [HOST:]PORT --to HOST:PORT [--workers N]\n");
    exit(status);
}

/* "HOST:PORT", or "PORT" alone on 127.0.0.1. */
static struct addrinfo *resolve(const char *text)
{
    const char *colon = strrchr(text, ':');
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    char *host = colon ? strndup(text, (size_t)(colon - text)) : strdup("127.0.0.1");
    int error = host ? getaddrinfo(host, colon ? colon + 1 : text, &hints, &found) : EAI_MEMORY;
    if (error) {
        fprintf(stderr, "relay: %s: %s\n", text, gai_strerror(error));
        exit(1);
    }
    free(host);
    return found;
}

static int parse_workers(const char *text)
{
    char *end;
    long count = strtol(text, &end, 10);
    if (end == text || *end || count < 1 || count > WORKERS_MAX) {
        fprintf(stderr, "relay: --workers is 1 to %d, not \"%s\"\n", WORKERS_MAX, text);
        exit(1);
    }
    return (int)count;
}

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Signals are blocked before the workers start, so that only this thread gets them. */
static void run(int workers, const struct addrinfo *at, const struct addrinfo *to)
{
    sigset_t signals;
    int number;
    struct worker *worker = calloc((size_t)workers, sizeof(*worker));
    if (!worker)
        die("calloc");
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    for (int i = 0; i < workers; i++)
        worker_start(&worker[i], at, to);
    sigwait(&signals, &number);
    for (int i = 0; i < workers; i++)
        uv_async_send(&worker[i].stop);
    for (int i = 0; i < workers; i++)
        pthread_join(worker[i].thread, NULL);
    free(worker);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"listen", required_argument, NULL, 'l'},
        {"to", required_argument, NULL, 't'},
        {"workers", required_argument, NULL, 'w'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *at = NULL, *to = NULL;
    int workers = 1, option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'l')
            at = optarg;
        else if (option == 't')
            to = optarg;
        else if (option == 'w')
            workers = parse_workers(optarg);
        else
            usage(option == 'h' ? 0 : 1);
    }
    if (!at || !to || optind < argc)
        usage(1);
    raise_file_limit();
    struct addrinfo *listen_address = resolve(at), *to_address = resolve(to);
    run(workers, listen_address, to_address);
    freeaddrinfo(listen_address);
    freeaddrinfo(to_address);
    return 0;
}

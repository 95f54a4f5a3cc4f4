/* takeover.c: both sides of a handover from a running process to a new one. */
#include "proxy/takeover.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "pgshunt/arena.h"
#include "pgshunt/log.h"
#include "proxy/daemon.h"
#include "proxy/http.h"
#include "proxy/notify.h"
#include "proxy/takeover_note.h"
#include "proxy/takeover_spawn.h"
#include "proxy/worker.h"

#define CLAIM_ATTEMPTS 40
#define CLAIM_PAUSE_US 50000
#define HELLO_SECONDS 2    /* how long who connects may take to say what he wants */
#define ANSWER_SECONDS 10  /* how long the other process may take for what needs no work */
#define RESTART_SECONDS 60 /* ... and to replace itself */

struct takeover {
    struct daemon *daemon;
    pthread_t thread;
    bool started;
    int wake; /* eventfd: the thread has to end */

    pthread_mutex_t lock;
    /* Guarded by the lock. */
    int control;       /* where others connect; -1: not ours any more */
    int predecessor;   /* -1: none, or it has ended */
    bool handing_over; /* a successor has the listeners: their files are left to it */

    /* The thread's own. */
    int successor; /* who asked for the listeners; -1: nobody */
    int asker;     /* who waits for the successor: `pgshunt --restart`; -1: nobody */
    struct spawned spawned;
    char *config_path;
    atomic_int successor_pid;
    atomic_bool stopping;
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void limit_waiting(int fd, int seconds)
{
    struct timeval limit = {.tv_sec = seconds};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

/* ---- the running process ---- */

static int control_of(struct takeover *takeover)
{
    pthread_mutex_lock(&takeover->lock);
    int control = takeover->control;
    pthread_mutex_unlock(&takeover->lock);
    return control;
}

static void hand_listeners_to(struct takeover *takeover, int fd)
{
    struct note note = {.kind = NOTE_LISTENERS, .pid = (int32_t)getpid()};
    const struct listeners *listeners = &takeover->daemon->listeners;
    int fds[NOTE_FDS_MAX], count = 0;
    pthread_mutex_lock(&takeover->lock);
    bool open = takeover->control >= 0;
    if (open) {
        fds[count++] = takeover->control;
        note.nhttp = http_listeners(takeover->daemon->http, fds + count);
        count += note.nhttp;
        for (int i = 0; i < listeners->count && open; i++) {
            if (count == NOTE_FDS_MAX) {
                note.more = true;
                open = note_send_whole(fd, &note, fds, count);
                note.more = count = 0;
            }
            fds[count++] = listeners->sockets[i].fd;
        }
        open = open && note_send_whole(fd, &note, fds, count);
        takeover->handing_over = open;
    }
    pthread_mutex_unlock(&takeover->lock);
    if (open)
        takeover->successor = fd;
    else
        close(fd);
}

static void refuse(int fd, const char *why)
{
    note_send(fd, NOTE_REFUSED, why);
    close(fd);
}

static void start_successor(struct takeover *takeover, int fd)
{
    char error[200];
    if (takeover->asker >= 0 || takeover->successor >= 0) {
        refuse(fd, "another process is already taking over");
    } else if (!spawn_successor(&takeover->spawned, takeover->config_path, error, sizeof error)) {
        refuse(fd, error);
    } else {
        log_event(LOG_INFO, "a successor has been started", LOG_I("pid", takeover->spawned.pid));
        takeover->asker = fd;
    }
}

static void answer(struct takeover *takeover, int fd)
{
    struct note note;
    if (!note_peer_is_ours(fd)) {
        log_event(LOG_WARNING, "another user's process has connected to the control socket");
        close(fd);
        return;
    }
    limit_waiting(fd, HELLO_SECONDS);
    if (!note_receive(fd, &note, NULL, NULL)) {
        refuse(fd, "the two programs are of versions that do not understand each other");
    } else if (note.kind == NOTE_TAKEOVER && takeover->successor >= 0) {
        refuse(fd, "another process is already taking over");
    } else if (note.kind == NOTE_TAKEOVER) {
        log_event(LOG_INFO, "a new process wants to take over", LOG_I("pid", note.pid));
        hand_listeners_to(takeover, fd);
    } else if (note.kind == NOTE_RESTART) {
        start_successor(takeover, fd);
    } else {
        note_send(fd, NOTE_IDENTITY, NULL);
        close(fd);
    }
}

static void accept_process(struct takeover *takeover)
{
    pthread_mutex_lock(&takeover->lock);
    int fd = takeover->control < 0 ? -1 : accept4(takeover->control, NULL, NULL, SOCK_CLOEXEC);
    pthread_mutex_unlock(&takeover->lock);
    if (fd >= 0)
        answer(takeover, fd);
}

static void tell_asker(struct takeover *takeover, enum note_kind kind, int32_t pid,
                       const char *text)
{
    struct note note = {.kind = kind, .pid = pid};
    if (takeover->asker < 0)
        return;
    snprintf(note.text, sizeof note.text, "%s", text);
    note_send_whole(takeover->asker, &note, NULL, 0);
    close_fd(&takeover->asker);
}

/* Whoever connects from now on comes to the successor. Where this process has been told to end in the
 * meantime, so has its service: the supervisor hears of no successor. */
static void let_go(struct takeover *takeover, int32_t pid)
{
    bool ending = control_of(takeover) < 0;
    atomic_store(&takeover->successor_pid, pid);
    takeover_close_listeners(takeover);
    if (!ending) /* before RELEASED: what the successor says only counts from then on */
        notify_successor(pid);
    note_send(takeover->successor, NOTE_RELEASED, NULL);
    tell_asker(takeover, NOTE_DONE, pid, "");
    spawn_forget(&takeover->spawned);
    daemon_shutdown(takeover->daemon, SHUTDOWN_HANDED_OVER);
}

static void note_given_up(struct takeover *takeover)
{
    pthread_mutex_lock(&takeover->lock);
    takeover->handing_over = false;
    pthread_mutex_unlock(&takeover->lock);
    log_event(LOG_WARNING, "the new process has given up, this one goes on as before");
}

static void hear_successor(struct takeover *takeover)
{
    struct note note;
    bool heard = note_receive(takeover->successor, &note, NULL, NULL);
    if (heard && note.kind == NOTE_READY && !atomic_load(&takeover->successor_pid))
        let_go(takeover, note.pid);
    else if (heard && note.kind == NOTE_CANCEL)
        cancel_forwarded(takeover->daemon, note.key_pid, note.secret, note.secret_length);
    if (heard)
        return;
    if (!atomic_load(&takeover->successor_pid))
        note_given_up(takeover);
    close_fd(&takeover->successor);
}

static void hear_child(struct takeover *takeover)
{
    char text[200];
    spawn_ended(&takeover->spawned, text, sizeof text);
    log_event(LOG_ERROR, "restart failed, this process goes on as before", LOG_S("reason", text));
    tell_asker(takeover, NOTE_REFUSED, 0, text);
}

/* ---- the thread ---- */

/* It says nothing after RELEASED: what is heard is its end. */
static void hear_predecessor(struct takeover *takeover)
{
    struct note note;
    if (note_receive(takeover->predecessor, &note, NULL, NULL))
        return;
    log_event(LOG_INFO, "the process that was taken over from has ended");
    pthread_mutex_lock(&takeover->lock);
    close_fd(&takeover->predecessor);
    pthread_mutex_unlock(&takeover->lock);
}

static void *run(void *arg)
{
    struct takeover *takeover = arg;
    log_thread_name("takeover");
    while (!atomic_load(&takeover->stopping)) {
        /* poll() leaves out negative descriptors */
        struct pollfd fds[] = {{.fd = takeover->wake, .events = POLLIN},
                               {.fd = control_of(takeover), .events = POLLIN},
                               {.fd = takeover->successor, .events = POLLIN},
                               {.fd = takeover->predecessor, .events = POLLIN},
                               {.fd = takeover->spawned.pidfd, .events = POLLIN}};
        uint64_t ignored;
        if (poll(fds, sizeof fds / sizeof fds[0], -1) < 0)
            continue;
        if (fds[0].revents && read(takeover->wake, &ignored, sizeof ignored) < 0)
            continue;
        if (fds[2].revents)
            hear_successor(takeover);
        if (fds[3].revents)
            hear_predecessor(takeover);
        if (fds[4].revents && takeover->spawned.pidfd >= 0)
            hear_child(takeover);
        if (fds[1].revents && !fds[0].revents)
            accept_process(takeover);
    }
    return NULL;
}

static void wake(struct takeover *takeover)
{
    uint64_t one = 1;
    ssize_t written = write(takeover->wake, &one, sizeof one);
    (void)written; /* it cannot be full */
}

/* ---- the new process ---- */

/* Sets one of them: `control`, which nobody had, or `link`, to who has it. */
static bool claim(const char *name, int *control, int *link)
{
    for (int i = 0; i < CLAIM_ATTEMPTS; i++) {
        *control = note_listen(name);
        if (*control >= 0 || errno != EADDRINUSE)
            return *control >= 0;
        *link = note_connect(name);
        if (*link >= 0)
            return true;
        usleep(CLAIM_PAUSE_US); /* it is just coming, or has just gone */
    }
    return false;
}

/* The first note begins with the control socket. */
static int inherit(const struct note *note, const int *fds, int count,
                   struct inheritance *inheritance)
{
    int at = 1;
    if (count < 1)
        return -1;
    for (int i = 0; i < note->nhttp && i < HTTP_POINTS_MAX && at < count; i++)
        inheritance->http.fds[inheritance->http.count++] = fds[at++];
    listeners_adopt(inheritance->listeners, fds + at, count - at);
    return fds[0];
}

/* ... further ones bring more of the clients' sockets. */
static bool inherit_more(int link, struct note *note, struct inheritance *inheritance)
{
    int fds[NOTE_FDS_MAX], count = 0;
    while (note->more) {
        if (!note_receive(link, note, fds, &count) || note->kind != NOTE_LISTENERS)
            return false;
        listeners_adopt(inheritance->listeners, fds, count);
    }
    return true;
}

/* Returns the control socket; -1 and `error`: it was not given. */
static int ask_for_listeners(int link, struct inheritance *inheritance, char *error, size_t size)
{
    struct note note;
    int fds[NOTE_FDS_MAX], count = 0;
    if (!note_send(link, NOTE_TAKEOVER, NULL) || !note_receive(link, &note, fds, &count)) {
        snprintf(error, size,
                 "the running pgshunt does not answer, or is of a version that cannot "
                 "hand over: stop it first");
        return -1;
    }
    if (note.kind != NOTE_LISTENERS) {
        snprintf(error, size, "the running pgshunt (pid %d) does not hand over: %.300s", note.pid,
                 note.text);
        return -1;
    }
    int control = inherit(&note, fds, count, inheritance);
    if (control < 0 || !inherit_more(link, &note, inheritance)) {
        snprintf(error, size, "the running pgshunt (pid %d) has ended while it handed over",
                 note.pid);
        close_fd(&control);
        return -1;
    }
    log_event(LOG_INFO, "taking over", LOG_I("from_pid", note.pid),
              LOG_I("sockets", inheritance->listeners->count));
    return control;
}

static void explain_occupied(const struct config *config, int link, char *error, size_t size)
{
    struct note note = {0};
    if (!note_send(link, NOTE_PROBE, NULL) || !note_receive(link, &note, NULL, NULL))
        note.pid = 0;
    snprintf(
        error, size,
        "another pgshunt (pid %d) listens on %.100s:%d: stop it first, or start with --takeover "
        "to have this one go on in its place",
        note.pid, config->listen_address, config->listen_port);
}

static struct takeover *new_takeover(const struct config *config, int control, int predecessor)
{
    struct takeover *takeover = mem_alloc(sizeof *takeover);
    pthread_mutex_init(&takeover->lock, NULL);
    takeover->control = control;
    takeover->predecessor = predecessor;
    takeover->successor = takeover->asker = -1;
    takeover->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    takeover->config_path = mem_strdup(config->path);
    spawn_init(&takeover->spawned);
    return takeover;
}

/* There is somebody: ask, or say that there is. */
static struct takeover *follow(const struct config *config, bool wanted, int link,
                               struct inheritance *inheritance, char *error, size_t size)
{
    int control = -1;
    limit_waiting(link, ANSWER_SECONDS);
    if (!note_peer_is_ours(link)) {
        if (wanted)
            snprintf(error, size, "what is to be taken over belongs to another user");
        else
            log_event(LOG_WARNING, "another user has the control socket: no online restart");
    } else if (wanted) {
        control = ask_for_listeners(link, inheritance, error, size);
    } else {
        explain_occupied(config, link, error, size);
    }
    if (control >= 0)
        return new_takeover(config, control, link);
    close(link);
    return NULL;
}

struct takeover *takeover_open(const struct config *config, bool wanted,
                               struct inheritance *inheritance, char *error, size_t size)
{
    char name[200];
    int control = -1, link = -1;
    inheritance->http.count = 0;
    error[0] = '\0';
    if (!note_socket_name(config, name, sizeof name)) {
        if (wanted)
            snprintf(error, size, "--takeover needs restart.socket, which is off");
        return NULL;
    }
    if (!claim(name, &control, &link)) {
        snprintf(error, size, "cannot open the control socket %s (restart.socket): %s", name,
                 strerror(errno));
        return NULL;
    }
    if (link >= 0)
        return follow(config, wanted, link, inheritance, error, size);
    if (wanted)
        log_event(LOG_INFO, "there is no running pgshunt to take over from");
    return new_takeover(config, control, -1);
}

bool takeover_ready(struct takeover *takeover, struct daemon *daemon)
{
    struct note note;
    takeover->daemon = daemon;
    listen(takeover->control, SOMAXCONN); /* again: so that it carries this process' credentials */
    if (takeover->predecessor >= 0) {
        bool released = note_send(takeover->predecessor, NOTE_READY, NULL) &&
                        note_receive(takeover->predecessor, &note, NULL, NULL);
        log_event(LOG_INFO, released ? "taken over" : "taken over from a process that has ended");
    }
    takeover->started = pthread_create(&takeover->thread, NULL, run, takeover) == 0;
    return takeover->started;
}

bool takeover_forward_cancel(struct takeover *takeover, int32_t pid, const unsigned char *secret,
                             size_t length)
{
    struct note note = {.kind = NOTE_CANCEL, .pid = (int32_t)getpid(), .key_pid = pid};
    if (!takeover || length > sizeof note.secret)
        return false;
    memcpy(note.secret, secret, length);
    note.secret_length = (uint32_t)length;
    pthread_mutex_lock(&takeover->lock);
    bool sent =
        takeover->predecessor >= 0 && note_send_whole(takeover->predecessor, &note, NULL, 0);
    pthread_mutex_unlock(&takeover->lock);
    return sent;
}

/* ---- ending ---- */

void takeover_close_listeners(struct takeover *takeover)
{
    pthread_mutex_lock(&takeover->lock);
    close_fd(&takeover->control);
    if (takeover->daemon)
        listeners_close(&takeover->daemon->listeners, takeover->handing_over);
    pthread_mutex_unlock(&takeover->lock);
    wake(takeover); /* it may be polling what is closed */
}

int takeover_successor(const struct takeover *takeover)
{
    return takeover ? atomic_load(&takeover->successor_pid) : 0;
}

void takeover_stop(struct takeover *takeover)
{
    if (!takeover)
        return;
    atomic_store(&takeover->stopping, true);
    wake(takeover);
    if (takeover->started)
        pthread_join(takeover->thread, NULL);
    close_fd(&takeover->control);
    close_fd(&takeover->predecessor);
    close_fd(&takeover->successor);
    close_fd(&takeover->asker);
    close_fd(&takeover->wake);
    spawn_forget(&takeover->spawned);
    free(takeover->config_path);
    free(takeover);
}

/* ---- pgshunt --restart ---- */

int takeover_restart(const struct config *config)
{
    struct note note = {0};
    char name[200];
    if (!note_socket_name(config, name, sizeof name)) {
        fprintf(stderr, "pgshunt: --restart needs restart.socket, which is off\n");
        return 1;
    }
    int fd = note_connect(name);
    if (fd < 0 || !note_peer_is_ours(fd)) {
        fprintf(stderr, "pgshunt: no pgshunt of this user listens on %s:%d\n",
                config->listen_address, config->listen_port);
        if (fd >= 0)
            close(fd);
        return 1;
    }
    limit_waiting(fd, RESTART_SECONDS);
    bool answered = note_send(fd, NOTE_RESTART, NULL) && note_receive(fd, &note, NULL, NULL);
    close(fd);
    if (answered && note.kind == NOTE_DONE) {
        printf("pid %d has taken over\n", note.pid);
        return 0;
    }
    fprintf(stderr, "pgshunt: not restarted: %s\n", answered ? note.text : "no answer");
    return 1;
}

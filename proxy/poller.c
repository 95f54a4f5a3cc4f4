/* poller.c: epoll for sockets, with a libuv loop among them. */
#include "proxy/poller.h"

#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "proxy/outbox.h"

#define EVENTS_PER_TURN 256

static void loop_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    watch->poller->loop_due = true;
}

bool poller_open(struct poller *poller, uv_loop_t *loop)
{
    *poller = (struct poller){.fd = epoll_create1(EPOLL_CLOEXEC), .loop = loop};
    if (poller->fd < 0)
        return false;
    if (!watch_begin(&poller->loop_watch, poller, uv_backend_fd(loop), EPOLLIN, loop_ready)) {
        close(poller->fd);
        return false;
    }
    poller->watches = 0;
    poller->outbox = outbox_new();
    return true;
}

void poller_close(struct poller *poller)
{
    close(poller->fd);
    poller->fd = -1;
    outbox_free(poller->outbox);
    poller->outbox = NULL;
}

bool poller_alive(const struct poller *poller)
{
    return poller->watches || uv_loop_alive(poller->loop);
}

static void serve(const struct epoll_event *event)
{
    struct watch *watch = event->data.ptr;
    uint32_t events = event->events;
    if (events & EPOLLHUP) /* reading or writing tells */
        events |= EPOLLIN | EPOLLOUT;
    if (watch->poller)
        watch->ready(watch, events);
}

/* Those who ask for it once more meanwhile are for the next turn. */
static void serve_again(struct poller *poller)
{
    struct watch *watch = poller->again;
    poller->again = NULL;
    while (watch) {
        struct watch *next = watch->next_again;
        watch->again = false;
        if (watch->poller)
            watch->ready(watch, EPOLLIN);
        watch = next;
    }
}

static void bury(struct poller *poller)
{
    while (poller->gone) {
        struct watch *watch = poller->gone;
        poller->gone = watch->next_gone;
        poller->watches--;
        watch->gone(watch);
    }
}

void poller_turn(struct poller *poller)
{
    struct epoll_event events[EVENTS_PER_TURN];
    poller->turns++;
    uv_update_time(poller->loop); /* what it counts the time left from */
    int timeout = poller->again ? 0 : uv_backend_timeout(poller->loop);
    int count = epoll_wait(poller->fd, events, EVENTS_PER_TURN, timeout);
    poller->loop_due = timeout == 0 || count == 0;
    if (count > 1)
        outbox_open(poller->outbox);
    if (poller->again)
        serve_again(poller);
    for (int i = 0; i < count; i++)
        serve(&events[i]);
    if (count > 1)
        outbox_close(poller->outbox);
    if (poller->loop_due)
        uv_run(poller->loop, UV_RUN_NOWAIT);
    bury(poller);
}

static bool tell_kernel(struct watch *watch, int operation, uint32_t interest)
{
    struct epoll_event event = {.events = interest, .data.ptr = watch};
    return epoll_ctl(watch->poller->fd, operation, watch->fd, &event) == 0;
}

bool watch_begin(struct watch *watch, struct poller *poller, int fd, uint32_t interest,
                 void (*ready)(struct watch *watch, uint32_t events))
{
    *watch = (struct watch){.poller = poller, .fd = fd, .interest = interest, .ready = ready};
    if (!tell_kernel(watch, EPOLL_CTL_ADD, interest)) {
        watch->poller = NULL;
        return false;
    }
    poller->watches++;
    return true;
}

/* Without interest it leaves the kernel's list: an error there would be reported again and again. */
void watch_change(struct watch *watch, uint32_t interest)
{
    uint32_t before = watch->interest;
    if (!watch->poller || before == interest)
        return;
    watch->interest = interest;
    tell_kernel(watch,
                !before    ? EPOLL_CTL_ADD
                : interest ? EPOLL_CTL_MOD
                           : EPOLL_CTL_DEL,
                interest);
}

void watch_again(struct watch *watch)
{
    struct poller *poller = watch->poller;
    if (!poller || watch->again)
        return;
    watch->again = true;
    watch->next_again = poller->again;
    poller->again = watch;
}

/* Of those of the next turn: one of this turn is looked at once more before it is gone. */
static void forget_again(struct watch *watch)
{
    for (struct watch **link = &watch->poller->again; *link; link = &(*link)->next_again)
        if (*link == watch) {
            *link = watch->next_again;
            return;
        }
}

static void end(struct watch *watch, void (*gone)(struct watch *watch))
{
    struct poller *poller = watch->poller;
    if (watch->again)
        forget_again(watch);
    watch->gone = gone;
    watch->next_gone = poller->gone;
    poller->gone = watch;
    watch->poller = NULL;
}

void watch_end(struct watch *watch, void (*gone)(struct watch *watch))
{
    watch_change(watch, 0);
    end(watch, gone);
}

static atomic_int sharing;

void poller_descriptors_shared(bool shared)
{
    atomic_fetch_add(&sharing, shared ? 1 : -1);
}

void watch_end_closing(struct watch *watch, void (*gone)(struct watch *watch))
{
    if (atomic_load(&sharing))
        watch_change(watch, 0);
    end(watch, gone);
}

/*
 * poller.h: the sockets of one thread, on an epoll descriptor of their own beside a libuv loop.
 *
 * A connection costs one epoll_ctl, when it is opened, and an event of it costs a call through a pointer.
 * libuv would try the descriptor out first, register it with the next wait and take it out at its close:
 * four system calls more for each connection. What is rare stays libuv's: timers, and messages from other
 * threads. Its descriptor (uv_backend_fd) is one among ours, and the loop is run, without waiting, when
 * that has something or a timer is due.
 *
 * A watch whose interest has EPOLLET is told of what is new only, which spares the kernel to look again with
 * every wait. Who has not taken all there is says so with watch_again(), and is called in the next turn.
 *
 * A watch may be ended at any time, also while others of the same turn are being served: it hears nothing
 * from then on, and may be freed in its `gone`, which runs at the end of the turn.
 */
#ifndef PGSHUNT_PROXY_POLLER_H
#define PGSHUNT_PROXY_POLLER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <uv.h>

#include "pgshunt/error.h"

struct outbox;
struct poller;

struct watch {
    struct poller *poller; /* NULL: ended, or not begun */
    int fd;
    uint32_t interest; /* EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET; 0: the kernel does not know it */
    bool again;        /* it is in the poller's list of that name */
    void (*ready)(struct watch *watch, uint32_t events);
    void (*gone)(struct watch *watch);
    struct watch *next_gone;
    struct watch *next_again;
};

struct poller {
    int fd;
    uv_loop_t *loop;
    struct watch loop_watch;
    bool loop_due;
    uint64_t turns;     /* so far */
    int watches;        /* begun and not gone yet, without loop_watch */
    struct watch *gone; /* ended in this turn */
    struct watch *again;
    struct outbox *outbox; /* of a turn that serves several */
};

/* Puts an initialised loop on it. False: no descriptor is left. */
MUST_CHECK bool poller_open(struct poller *poller, uv_loop_t *loop);
/* Of no watches any more. The loop is the caller's to close. */
void poller_close(struct poller *poller);
/* Whether there is something to wait for. */
bool poller_alive(const struct poller *poller);
/* Waits until something is ready, and serves it all once. */
void poller_turn(struct poller *poller);

/* Calls ready() with what of EPOLLIN and EPOLLOUT it is ready for (both: the peer has hung up), EPOLLRDHUP
 * where that was asked for, or EPOLLERR. False: cannot be watched. */
MUST_CHECK bool watch_begin(struct watch *watch, struct poller *poller, int fd, uint32_t interest,
                            void (*ready)(struct watch *watch, uint32_t events));
void watch_change(struct watch *watch, uint32_t interest);
/* ready() comes again in the next turn, with EPOLLIN, whatever the kernel says. */
void watch_again(struct watch *watch);
/* Ends it; the descriptor stays open. */
void watch_end(struct watch *watch, void (*gone)(struct watch *watch));
/* As watch_end, for a descriptor that is closed next and is the only one of its socket: the kernel
 * forgets it then by itself. */
void watch_end_closing(struct watch *watch, void (*gone)(struct watch *watch));
/* Around the start of a process, by any thread: until it has exec'ed it has copies of all descriptors, and
 * closing one here is not the end of its socket. Calls may nest. */
void poller_descriptors_shared(bool shared);

#endif

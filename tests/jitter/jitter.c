/*
 * jitter.c: a library to preload that makes a program meet what only a busy machine shows.
 *
 * Races of pgshunt are between two connections, or two threads: what is read first, and how much of it. So this puts
 * itself between the program and the kernel, and
 *
 *   - holds back what epoll_wait() has to say of a descriptor for a while, while the others go on; now and then a
 *     descriptor is slow in all it says for half a second. What is said at once comes in any order;
 *   - cuts what recv() takes and send() gives, so that messages come in pieces that end anywhere;
 *   - lets threads sleep ahead of and behind calls: sockets, pipes, poll(), locks, connect().
 *
 * Nothing of that may a program rely on: the kernel and the network do all of it. PGSHUNT_JITTER is the seed (a number);
 * each thread draws from a sequence of its own, so a seed says what kinds of delays a run has, and not exactly when.
 *
 * What was held back or cut is told later: a descriptor that is watched by edges is changed in epoll to what it is,
 * which lets the kernel tell anew. Descriptors that are closed or changed meanwhile are forgotten: the kernel speaks
 * again of what is still so.
 */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS_MAX 8192

/* ---- chance ---- */

static bool active;
static pid_t process;
static uint64_t seed;
static unsigned kinds; /* bits of enum kind: what this seed does */
static _Thread_local uint64_t state;
static uint64_t threads;

enum kind { HOLDS = 1, CUTS = 2, SLEEPS = 4 };

static uint64_t draw(void)
{
    if (!state)
        state = (seed + 1) * 0x9e3779b97f4a7c15u ^
                (__atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED) << 32 | 0x2545f491u);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state >> 11;
}

static bool once_in(unsigned n)
{
    return draw() % n == 0;
}

static uint64_t between(uint64_t low, uint64_t high)
{
    return low + draw() % (high - low + 1);
}

/* Microseconds: mostly short, seldom long. */
static uint64_t delay(void)
{
    if (once_in(40))
        return between(20000, 50000);
    return between(200, 3000);
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void sleep_us(uint64_t us)
{
    struct timespec time = {.tv_sec = (time_t)(us / 1000000),
                            .tv_nsec = (long)(us % 1000000) * 1000};
    int before = errno;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
    errno = before;
}

static void perhaps_sleep(unsigned n)
{
    if (active && (kinds & SLEEPS) && once_in(n))
        sleep_us(delay());
}

static bool is_stream(int fd)
{
    int type = 0;
    socklen_t size = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

/* A shorter length than `len`, if it is to be cut. */
static size_t cut(int fd, size_t len, unsigned n)
{
    if (!active || !(kinds & CUTS) || len < 2 || !once_in(n) || !is_stream(fd))
        return len;
    size_t some = once_in(2) ? between(1, 7) : between(1, 400);
    return some < len ? some : len;
}

/* ---- the calls themselves ---- */

static int (*real_epoll_wait)(int, struct epoll_event *, int, int);
static int (*real_epoll_ctl)(int, int, int, struct epoll_event *);
static int (*real_close)(int);
static int (*real_connect)(int, const struct sockaddr *, socklen_t);
static int (*real_poll)(struct pollfd *, nfds_t, int);
static int (*real_lock)(pthread_mutex_t *);
static int (*real_unlock)(pthread_mutex_t *);
static ssize_t (*real_recv)(int, void *, size_t, int);
static ssize_t (*real_send)(int, const void *, size_t, int);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_read)(int, void *, size_t);
static long (*real_syscall)(long, ...);

#define FIND(variable, name)                                                                       \
    do                                                                                             \
        *(void **)&(variable) = dlsym(RTLD_NEXT, name);                                            \
    while (0)

static void find_all(void)
{
    FIND(real_lock, "pthread_mutex_lock");
    FIND(real_unlock, "pthread_mutex_unlock");
    FIND(real_epoll_wait, "epoll_wait");
    FIND(real_epoll_ctl, "epoll_ctl");
    FIND(real_close, "close");
    FIND(real_connect, "connect");
    FIND(real_poll, "poll");
    FIND(real_recv, "recv");
    FIND(real_send, "send");
    FIND(real_sendmsg, "sendmsg");
    FIND(real_write, "write");
    FIND(real_read, "read");
    FIND(real_syscall, "syscall");
}

#define READY()                                                                                    \
    do                                                                                             \
        if (!real_syscall)                                                                         \
            find_all();                                                                            \
    while (0)

/* Each seed leaves out one thing, or none: what is found is then easier to explain. */
__attribute__((constructor)) static void begin(void)
{
    static const unsigned of_seed[] = {HOLDS | CUTS | SLEEPS, HOLDS | CUTS, HOLDS | SLEEPS,
                                       CUTS | SLEEPS, HOLDS | CUTS | SLEEPS};
    const char *value = getenv("PGSHUNT_JITTER");
    READY();
    if (!value || !*value)
        return;
    seed = strtoull(value, NULL, 10);
    kinds = of_seed[seed % (sizeof of_seed / sizeof of_seed[0])];
    process = getpid();
    seed = seed << 20 ^ (uint64_t)process << 40;
    active = true;
}

/* ---- what is watched by which epoll descriptor ---- */

struct entry {
    bool used;
    uint32_t interest, held; /* held: what it would have said */
    epoll_data_t data;       /* the program's */
    int64_t until, slow_until;
};

struct set {
    struct entry entries[FDS_MAX];
    int top; /* entries from here on were never used */
};

static struct set *sets[FDS_MAX];
static pthread_mutex_t books = PTHREAD_MUTEX_INITIALIZER;

static struct set *set_of(int epfd)
{
    return epfd >= 0 && epfd < FDS_MAX ? sets[epfd] : NULL;
}

static struct set *set_made(int epfd)
{
    if (epfd < 0 || epfd >= FDS_MAX)
        return NULL;
    if (!sets[epfd])
        sets[epfd] = calloc(1, sizeof *sets[epfd]);
    return sets[epfd];
}

static void note(int epfd, int operation, int fd, const struct epoll_event *event)
{
    struct set *set = operation == EPOLL_CTL_DEL ? set_of(epfd) : set_made(epfd);
    if (!set)
        return;
    struct entry *entry = &set->entries[fd];
    int64_t slow_until = operation == EPOLL_CTL_MOD ? entry->slow_until : 0;
    *entry = (struct entry){.slow_until = slow_until};
    if (operation == EPOLL_CTL_DEL)
        return;
    entry->used = true;
    entry->interest = event->events;
    entry->data = event->data;
    if (fd >= set->top)
        set->top = fd + 1;
}

int epoll_ctl(int epfd, int operation, int fd, struct epoll_event *event)
{
    READY();
    if (!active || fd < 0 || fd >= FDS_MAX)
        return real_epoll_ctl(epfd, operation, fd, event);
    struct epoll_event own = {.events = event ? event->events : 0, .data.u64 = (uint64_t)fd};
    real_lock(&books);
    int result = real_epoll_ctl(epfd, operation, fd, operation == EPOLL_CTL_DEL ? event : &own);
    if (result == 0)
        note(epfd, operation, fd, event);
    real_unlock(&books);
    return result;
}

int close(int fd)
{
    READY();
    /* A child that has not become another program yet has our memory, but no business in it. */
    if (active && fd >= 0 && fd < FDS_MAX && getpid() == process) {
        int before = errno;
        real_lock(&books);
        for (int i = 0; i < FDS_MAX; i++)
            if (sets[i] && fd < sets[i]->top)
                sets[i]->entries[fd] = (struct entry){0};
        if (sets[fd]) /* who waits on it may still look */
            memset(sets[fd], 0, sizeof *sets[fd]);
        real_unlock(&books);
        errno = before;
    }
    return real_close(fd);
}

/* Not all was taken: whoever watches for edges thinks that it was, so the kernel has to speak again. */
static void tell_again(int fd)
{
    int before = errno;
    if (fd < 0 || fd >= FDS_MAX)
        return;
    real_lock(&books);
    for (int i = 0; i < FDS_MAX; i++) {
        struct entry *entry = sets[i] && fd < sets[i]->top ? &sets[i]->entries[fd] : NULL;
        if (!entry || !entry->used || !(entry->interest & EPOLLET))
            continue;
        struct epoll_event event = {.events = entry->interest, .data.u64 = (uint64_t)fd};
        real_epoll_ctl(i, EPOLL_CTL_MOD, fd, &event);
    }
    real_unlock(&books);
    errno = before;
}

/* ---- waiting ---- */

/* Whether what it says now has to wait. */
static bool holds_back(struct entry *entry, int64_t now)
{
    if (entry->until && now < entry->until)
        return true;
    if (entry->until) { /* it has waited long enough */
        entry->until = 0;
        return false;
    }
    if (now < entry->slow_until)
        entry->until = now + (int64_t)between(500, 15000);
    else if (once_in(400))
        entry->slow_until = now + 500000;
    else if (once_in(12))
        entry->until = now + (int64_t)delay();
    return entry->until > now;
}

/* What was held back and is due; *next is when the next one will be. */
static int take_due(struct set *set, struct epoll_event *events, int max, int64_t now,
                    int64_t *next)
{
    int count = 0;
    for (int fd = 0; fd < set->top; fd++) {
        struct entry *entry = &set->entries[fd];
        if (!entry->held)
            continue;
        if (entry->until > now || count == max) {
            *next = entry->until < *next ? entry->until : *next;
            continue;
        }
        events[count++] = (struct epoll_event){.events = entry->held, .data = entry->data};
        entry->held = 0;
        entry->until = 0;
    }
    return count;
}

/* Leaves of what the kernel says that which is said now. */
static int pass(struct set *set, struct epoll_event *events, int count, int64_t now)
{
    int passed = 0;
    for (int i = 0; i < count; i++) {
        struct entry *entry = &set->entries[events[i].data.u64 % FDS_MAX];
        if (!entry->used)
            continue;
        if ((kinds & HOLDS) && holds_back(entry, now)) {
            if (entry->interest & EPOLLET)
                entry->held |= events[i].events;
            continue;
        }
        events[passed++] = (struct epoll_event){.events = events[i].events, .data = entry->data};
    }
    return passed;
}

/* One that is told of now, held back earlier: both are one event. */
static int join(struct epoll_event *events, int due, int count)
{
    int kept = due;
    for (int i = due; i < count; i++) {
        int same = 0;
        while (same < due && events[same].data.u64 != events[i].data.u64)
            same++;
        if (same < due)
            events[same].events |= events[i].events;
        else
            events[kept++] = events[i];
    }
    return kept;
}

static void shuffle(struct epoll_event *events, int count)
{
    for (int i = count - 1; i > 0 && (kinds & HOLDS); i--) {
        int other = (int)between(0, (uint64_t)i);
        struct epoll_event event = events[i];
        events[i] = events[other];
        events[other] = event;
    }
}

static int rest_ms(int64_t now, int64_t until)
{
    return until == INT64_MAX ? -1 : until <= now ? 0 : (int)((until - now + 999) / 1000);
}

int epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
    READY();
    struct set *set = set_of(epfd);
    if (!active || !set)
        return real_epoll_wait(epfd, events, max, timeout);
    perhaps_sleep(400);
    int64_t end = timeout < 0 ? INT64_MAX : now_us() + (int64_t)timeout * 1000;
    for (;;) {
        int64_t now = now_us(), next = end;
        real_lock(&books);
        int due = take_due(set, events, max, now, &next);
        real_unlock(&books);
        int count = 0;
        if (due < max)
            count = real_epoll_wait(epfd, events + due, max - due, due ? 0 : rest_ms(now, next));
        if (count < 0 && !due)
            return -1;
        real_lock(&books);
        int passed = due + pass(set, events + due, count < 0 ? 0 : count, now_us());
        real_unlock(&books);
        passed = join(events, due, passed);
        shuffle(events, passed);
        if (passed)
            return passed;
        if (count)
            sleep_us(200); /* who is not watched by edges is reported again and again */
        if (now_us() >= end)
            return 0;
    }
}

int epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout, const sigset_t *mask)
{
    sigset_t before;
    if (mask)
        pthread_sigmask(SIG_SETMASK, mask, &before);
    int count = epoll_wait(epfd, events, max, timeout);
    int why = errno;
    if (mask)
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = why;
    return count;
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    READY();
    perhaps_sleep(30);
    int result = real_poll(fds, count, timeout);
    perhaps_sleep(30);
    return result;
}

/* ---- talking ---- */

static ssize_t received(int fd, ssize_t got, size_t asked, size_t len)
{
    if (asked < len && got == (ssize_t)asked)
        tell_again(fd);
    return got;
}

ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
    READY();
    perhaps_sleep(100);
    size_t asked = flags & (MSG_PEEK | MSG_WAITALL) ? len : cut(fd, len, 20);
    return received(fd, real_recv(fd, bytes, asked, flags), asked, len);
}

static ssize_t sent(int fd, ssize_t given, size_t asked, size_t len)
{
    if (asked < len && given >= 0)
        tell_again(fd);
    return given;
}

ssize_t send(int fd, const void *bytes, size_t len, int flags)
{
    READY();
    perhaps_sleep(100);
    size_t asked = cut(fd, len, 30);
    ssize_t given = sent(fd, real_send(fd, bytes, asked, flags), asked, len);
    perhaps_sleep(100);
    return given;
}

/* What carries descriptors goes as it is. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    READY();
    perhaps_sleep(100);
    size_t len = message->msg_iovlen && !message->msg_control ? message->msg_iov[0].iov_len : 0;
    size_t asked = cut(fd, len, 30);
    ssize_t given =
        asked < len
            ? sent(fd, real_send(fd, message->msg_iov[0].iov_base, asked, flags), asked, len)
            : real_sendmsg(fd, message, flags);
    perhaps_sleep(100);
    return given;
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    READY();
    perhaps_sleep(200);
    ssize_t given = real_write(fd, bytes, len);
    perhaps_sleep(200);
    return given;
}

ssize_t read(int fd, void *bytes, size_t len)
{
    READY();
    perhaps_sleep(200);
    return real_read(fd, bytes, len);
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    READY();
    perhaps_sleep(10);
    int result = real_connect(fd, address, length);
    perhaps_sleep(10);
    return result;
}

/* What workers send and receive with (proxy/conn.c). */
long syscall(long number, ...)
{
    READY();
    va_list list;
    long args[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        args[i] = va_arg(list, long);
    va_end(list);
    int fd = (int)args[0];
    size_t len = (size_t)args[2];
    if (number == SYS_recvfrom) {
        perhaps_sleep(300);
        size_t asked = cut(fd, len, 20);
        return received(fd, real_syscall(number, fd, args[1], asked, args[3], args[4], args[5]),
                        asked, len);
    }
    if (number == SYS_sendto) {
        perhaps_sleep(300);
        size_t asked = cut(fd, len, 30);
        long given = sent(fd, real_syscall(number, fd, args[1], asked, args[3], args[4], args[5]),
                          asked, len);
        perhaps_sleep(300);
        return given;
    }
    return real_syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

/* ---- locks ---- */

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    READY();
    perhaps_sleep(3000);
    int result = real_lock(mutex);
    perhaps_sleep(6000);
    return result;
}

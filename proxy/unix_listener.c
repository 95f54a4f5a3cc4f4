/* unix_listener.c: creates, locks and removes unix sockets for clients. */
#include "proxy/unix_listener.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "pgshunt/log.h"
#include "pgshunt/unixpath.h"

#define LOCK_PATH_SIZE (UNIX_PATH_SIZE + 5)
#define LOCK_ATTEMPTS 6
#define LOCK_PAUSE_US 100000 /* between creating the file and listening it is never longer */

enum use {
    USE_NONE,  /* there is no such file */
    USE_STALE, /* nobody listens */
    USE_LIVE,
    USE_ALIEN, /* no socket, or not ours to look at: errno */
};

static void lock_path(const char *path, char out[LOCK_PATH_SIZE])
{
    snprintf(out, LOCK_PATH_SIZE, "%s.lock", path);
}

static socklen_t address_of(const char *path, struct sockaddr_un *address)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof address->sun_path, "%s", path);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address->sun_path) + 1);
}

static enum use try_to_connect(const char *path)
{
    struct sockaddr_un address;
    socklen_t length = address_of(path, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return USE_ALIEN;
    int problem = connect(fd, (struct sockaddr *)&address, length) == 0 ? 0 : errno;
    close(fd);
    errno = problem;
    if (problem == ENOENT)
        return USE_NONE;
    if (problem == ECONNREFUSED)
        return USE_STALE;
    /* EAGAIN: its backlog is full. EPROTOTYPE: it is not for streams, but somebody's. */
    return !problem || problem == EAGAIN || problem == EPROTOTYPE ? USE_LIVE : USE_ALIEN;
}

static enum use use_of(const char *path)
{
    struct stat status;
    if (lstat(path, &status) != 0)
        return errno == ENOENT ? USE_NONE : USE_ALIEN;
    if (!S_ISSOCK(status.st_mode)) {
        errno = ENOTSOCK;
        return USE_ALIEN;
    }
    return try_to_connect(path);
}

/* 0: there is none, or nothing in it. */
static pid_t locked_by(const char *lock)
{
    char text[32] = "";
    int fd = open(lock, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    long pid = length > 0 ? strtol(text, NULL, 10) : 0;
    return pid > 0 && pid <= INT32_MAX ? (pid_t)pid : 0;
}

/* In a container, the pid of a process that was killed may well be ours now, or our parent's. */
static bool is_running(pid_t pid)
{
    return pid > 0 && pid != getpid() && pid != getppid() && (kill(pid, 0) == 0 || errno == EPERM);
}

static bool write_pid(int fd)
{
    char text[32];
    int length = snprintf(text, sizeof text, "%d\n", (int)getpid());
    return write(fd, text, (size_t)length) == length;
}

static bool create_lock(const char *lock)
{
    int fd = open(lock, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    bool written = write_pid(fd);
    int problem = errno;
    close(fd);
    if (!written)
        unlink(lock);
    errno = problem;
    return written;
}

static bool say_in_use(const char *path, pid_t pid, char *error, size_t size)
{
    if (pid)
        snprintf(error, size,
                 "another process (pid %d) listens on %s: stop it first, or set another "
                 "listen.unix_socket_dir or listen.port",
                 (int)pid, path);
    else
        snprintf(error, size,
                 "another process listens on %s: stop it first, or set another "
                 "listen.unix_socket_dir or listen.port",
                 path);
    return false;
}

static bool say_failed(const char *what, const char *path, char *error, size_t size)
{
    snprintf(error, size, "cannot %s %s (listen.unix_socket_dir): %s", what, path, strerror(errno));
    return false;
}

/* The lock file is there: whose? True: try again. */
static bool clear_lock(const char *path, const char *lock, int attempt, char *error, size_t size)
{
    pid_t pid = locked_by(lock);
    enum use use = use_of(path);
    if (use == USE_LIVE)
        return say_in_use(path, pid, error, size);
    if (use == USE_ALIEN)
        return say_failed("use", path, error, size);
    if (is_running(pid) && attempt < LOCK_ATTEMPTS - 2) {
        usleep(LOCK_PAUSE_US); /* it may be about to listen */
        return true;
    }
    log_event(LOG_INFO, "the lock file of a process that has gone is removed", LOG_S("file", lock),
              LOG_I("pid", pid));
    if (unlink(lock) != 0 && errno != ENOENT)
        return say_failed("remove", lock, error, size);
    return true;
}

static bool take_lock(const char *path, char *error, size_t size)
{
    char lock[LOCK_PATH_SIZE];
    lock_path(path, lock);
    for (int i = 0; i < LOCK_ATTEMPTS; i++) {
        if (create_lock(lock))
            return true;
        if (errno != EEXIST)
            return say_failed("create", lock, error, size);
        if (!clear_lock(path, lock, i, error, size))
            return false;
    }
    return say_in_use(path, locked_by(lock), error, size);
}

/* With the lock ours: what is left of a process that was killed goes; others make no lock file. */
static bool clear_path(const char *path, char *error, size_t size)
{
    switch (use_of(path)) {
    case USE_NONE:
        return true;
    case USE_LIVE:
        return say_in_use(path, 0, error, size);
    case USE_ALIEN:
        return say_failed("use", path, error, size);
    case USE_STALE:
        break;
    }
    return unlink(path) == 0 || say_failed("remove", path, error, size);
}

/* False, with errno. */
static bool find_group(const char *name, gid_t *group)
{
    struct group entry, *found = NULL;
    char space[4096], *end;
    unsigned long number = strtoul(name, &end, 10);
    *group = (gid_t)number;
    if (*name && !*end)
        return true;
    errno = getgrnam_r(name, &entry, space, sizeof space, &found);
    if (!found) {
        errno = errno ? errno : ENOENT;
        return false;
    }
    *group = found->gr_gid;
    return true;
}

static bool set_owner(const char *path, const char *group, char *error, size_t size)
{
    gid_t id;
    if (!*group)
        return true;
    if (find_group(group, &id) && chown(path, (uid_t)-1, id) == 0)
        return true;
    snprintf(error, size, "cannot give %s to group \"%s\" (listen.unix_socket_group): %s", path,
             group, errno == ENOENT ? "there is none of this name" : strerror(errno));
    return false;
}

/* Until it listens nobody can connect: so the mode comes before. */
static bool bind_and_listen(int fd, const char *path, int mode, const char *group, int backlog,
                            char *error, size_t size)
{
    struct sockaddr_un address;
    socklen_t length = address_of(path, &address);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) != 0)
        return say_failed("create", path, error, size);
    if (!set_owner(path, group, error, size))
        return false;
    if (chmod(path, (mode_t)mode) != 0)
        return say_failed("set the mode of", path, error, size);
    return listen(fd, backlog) == 0 || say_failed("listen on", path, error, size);
}

int unix_listener_open(const char *path, int mode, const char *group, int backlog, char *error,
                       size_t size)
{
    if (!take_lock(path, error, size))
        return -1;
    bool free_path = clear_path(path, error, size);
    int fd = free_path ? socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
    if (free_path && bind_and_listen(fd, path, mode, group, backlog, error, size))
        return fd;
    if (fd >= 0)
        close(fd);
    if (free_path)
        unlink(path);
    char lock[LOCK_PATH_SIZE];
    lock_path(path, lock);
    unlink(lock);
    return -1;
}

bool unix_listener_is_there(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0 && S_ISSOCK(status.st_mode);
}

/* At once: nobody shall find the file empty, or none. */
void unix_listener_claim(const char *path)
{
    char lock[LOCK_PATH_SIZE], fresh[LOCK_PATH_SIZE + 12];
    lock_path(path, lock);
    if (locked_by(lock) == getpid())
        return;
    snprintf(fresh, sizeof fresh, "%s.%d", lock, (int)getpid());
    unlink(fresh);
    if (create_lock(fresh) && rename(fresh, lock) == 0)
        return;
    log_event(LOG_WARNING, "cannot replace a lock file", LOG_S("file", lock),
              LOG_S("reason", strerror(errno)));
    unlink(fresh);
}

static void remove_both(const char *path, const char *lock)
{
    unlink(path);
    unlink(lock);
}

void unix_listener_remove(const char *path)
{
    char lock[LOCK_PATH_SIZE];
    lock_path(path, lock);
    if (locked_by(lock) == getpid())
        remove_both(path, lock);
}

void unix_listener_abandon(const char *path)
{
    char lock[LOCK_PATH_SIZE];
    lock_path(path, lock);
    remove_both(path, lock);
}

/* notify.c: tells systemd (the protocol of sd_notify(3)) and the pid file how the process is. */
#include "proxy/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* "/path", or "@name" in the abstract namespace. 0: no supervisor that wants to know. */
static socklen_t supervisor(struct sockaddr_un *address)
{
    const char *name = getenv("NOTIFY_SOCKET");
    size_t length = name ? strlen(name) : 0;
    if (length < 2 || length >= sizeof address->sun_path || (name[0] != '/' && name[0] != '@'))
        return 0;
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, name, length);
    if (name[0] == '@')
        address->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

/* Nothing is done where it cannot be sent: there is nobody to tell. */
static void notify(const char *text)
{
    struct sockaddr_un address = {0};
    socklen_t length = supervisor(&address);
    int fd = length ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0)
        return;
    ssize_t sent =
        sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&address, length);
    (void)sent;
    close(fd);
}

void notify_ready(void)
{
    notify("READY=1\nSTATUS=Serving clients");
}

void notify_reloading(void)
{
    struct timespec now;
    char text[80];
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    notify(text);
}

void notify_successor(pid_t pid)
{
    char text[40];
    snprintf(text, sizeof text, "MAINPID=%ld", (long)pid);
    notify(text);
}

void notify_stopping(void)
{
    notify("STOPPING=1\nSTATUS=Shutting down");
}

/* ---- pid file ---- */

/* By way of another name, so that nobody reads half of it, and a successor's replaces ours at once. */
bool pid_file_write(const char *path, char *error, size_t size)
{
    char temporary[4200];
    if (!path[0])
        return true;
    snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid());
    FILE *file = fopen(temporary, "we");
    bool written = file && fprintf(file, "%ld\n", (long)getpid()) > 0;
    if (file && fclose(file) != 0)
        written = false;
    if (written && rename(temporary, path) == 0)
        return true;
    snprintf(error, size, "cannot write pid_file \"%s\": %s", path, strerror(errno));
    if (file)
        unlink(temporary);
    return false;
}

void pid_file_remove(const char *path)
{
    long pid = 0;
    FILE *file = path[0] ? fopen(path, "re") : NULL;
    if (!file)
        return;
    bool ours = fscanf(file, "%ld", &pid) == 1 && pid == (long)getpid();
    fclose(file);
    if (ours)
        unlink(path);
}

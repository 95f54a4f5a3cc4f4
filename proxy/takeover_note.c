/* takeover_note.c: sends and receives the messages of a takeover, descriptors included. */
#include "proxy/takeover_note.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SEND_SECONDS 2
#define BACKLOG 16

union control {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int) * NOTE_FDS_MAX)];
};

bool note_send(int fd, enum note_kind kind, const char *text)
{
    struct note note = {.kind = kind, .pid = (int32_t)getpid()};
    if (text)
        snprintf(note.text, sizeof note.text, "%s", text);
    return note_send_whole(fd, &note, NULL, 0);
}

bool note_send_whole(int fd, struct note *note, const int *fds, int count)
{
    struct iovec part = {.iov_base = note, .iov_len = sizeof *note};
    union control control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    note->version = NOTE_VERSION;
    if (count) {
        size_t bytes = sizeof(int) * (size_t)count;
        message.msg_control = control.space;
        message.msg_controllen = CMSG_SPACE(bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(header), fds, bytes);
    }
    int flags = MSG_NOSIGNAL | (note->kind == NOTE_CANCEL ? MSG_DONTWAIT : 0);
    return sendmsg(fd, &message, flags) == (ssize_t)sizeof *note;
}

static int take_descriptors(struct msghdr *message, int *fds)
{
    int count = 0;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at; at = CMSG_NXTHDR(message, at)) {
        if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS)
            continue;
        size_t bytes = at->cmsg_len - CMSG_LEN(0);
        memcpy(fds + count, CMSG_DATA(at), bytes);
        count += (int)(bytes / sizeof *fds);
    }
    return count;
}

bool note_receive(int fd, struct note *note, int *fds, int *count)
{
    struct iovec part = {.iov_base = note, .iov_len = sizeof *note};
    union control control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int found[NOTE_FDS_MAX];
    message.msg_control = control.space;
    message.msg_controllen = sizeof control.space;
    ssize_t length = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (length <= 0)
        return false;
    int nfound = take_descriptors(&message, found);
    bool good = length == (ssize_t)sizeof *note && note->version == NOTE_VERSION &&
                note->secret_length <= sizeof note->secret && !(message.msg_flags & MSG_CTRUNC);
    if (good && fds) {
        memcpy(fds, found, sizeof *fds * (size_t)nfound);
        *count = nfound;
    } else {
        while (nfound)
            close(found[--nfound]);
    }
    if (good)
        note->text[sizeof note->text - 1] = '\0';
    return good;
}

/* ---- the socket ---- */

bool note_socket_name(const struct config *config, char *out, size_t size)
{
    if (strcmp(config->restart_socket, "off") == 0)
        return false;
    if (strcmp(config->restart_socket, "auto") == 0)
        snprintf(out, size, "@pgshunt-%.60s:%d", config->listen_address, config->listen_port);
    else
        snprintf(out, size, "@%s",
                 config->restart_socket + (config->restart_socket[0] == '@' ? 1 : 0));
    return true;
}

static socklen_t address_of(const char *name, struct sockaddr_un *address)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof address->sun_path, "%s", name);
    size_t length = strlen(address->sun_path);
    address->sun_path[0] =
        '\0'; /* the abstract namespace: it goes with the last process that has it */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

static int open_socket(void)
{
    struct timeval limit = {.tv_sec = SEND_SECONDS};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return fd;
}

static int close_with_errno(int fd)
{
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

int note_listen(const char *name)
{
    struct sockaddr_un address;
    socklen_t length = address_of(name, &address);
    int fd = open_socket();
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&address, length) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    return close_with_errno(fd);
}

int note_connect(const char *name)
{
    struct sockaddr_un address;
    socklen_t length = address_of(name, &address);
    int fd = open_socket();
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&address, length) == 0)
        return fd;
    return close_with_errno(fd);
}

bool note_peer_is_ours(int fd)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == geteuid();
}

/*
 * takeover_note.h: the messages between two processes of takeover.h, and the socket that they go over.
 *
 * Both ends are processes of one user, who may do with either what he likes: messages are checked for their
 * size and version, not for malice.
 */
#ifndef PGSHUNT_PROXY_TAKEOVER_NOTE_H
#define PGSHUNT_PROXY_TAKEOVER_NOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/config.h"
#include "proxy/cancel.h"
#include "proxy/listeners.h"

#define NOTE_FDS_MAX 128 /* the kernel takes 253 */

enum note_kind {
    NOTE_PROBE, /* who are you? -> IDENTITY */
    NOTE_IDENTITY,
    NOTE_TAKEOVER,  /* -> LISTENERS, or REFUSED */
    NOTE_LISTENERS, /* with the control socket, HTTP's (nhttp), clients'; more of these */
    NOTE_READY,
    NOTE_RELEASED,
    NOTE_CANCEL,
    NOTE_RESTART, /* -> DONE, or REFUSED */
    NOTE_DONE,    /* of the process `pid` */
    NOTE_REFUSED, /* because of `text` */
};

/* Its size and meaning belong to NOTE_VERSION: change that with them. */
struct note {
    uint32_t version;
    uint32_t kind;
    int32_t pid;     /* the sender's, or what is said above */
    int32_t nhttp;   /* listening sockets of HTTP among those that come with the first note */
    int32_t more;    /* LISTENERS: another one follows, with more of the clients' sockets */
    int32_t key_pid; /* CANCEL */
    uint32_t secret_length;
    unsigned char secret[CANCEL_KEY_MAX];
    char text[400];
};

#define NOTE_VERSION 0x50475302u

/* Sends a note of this process; false: the other end is gone, or does not read. */
bool note_send(int fd, enum note_kind kind, const char *text);
bool note_send_whole(int fd, struct note *note, const int *fds, int count);
/* False: the other end is gone, silent for too long, or not of this version. `fds`: NOTE_FDS_MAX, or
 * NULL where none may come. */
bool note_receive(int fd, struct note *note, int *fds, int *count);

/* The name ("@pgshunt-127.0.0.1:6432") of the socket, in `out`. False: it is off. */
bool note_socket_name(const struct config *config, char *out, size_t size);
/* A listening socket of this name; -1 (EADDRINUSE: there is one). */
int note_listen(const char *name);
int note_connect(const char *name);
/* Whether the other end is of our own user. */
bool note_peer_is_ours(int fd);

#endif

/*
 * spill.h: a transaction that is streamed before it is committed, in a file without a name until it is.
 *
 * Written in pieces as they come, read once from the beginning; what its aborted subtransactions did is left out then.
 */
#ifndef PGSHUNT_RESHARDER_SPILL_H
#define PGSHUNT_RESHARDER_SPILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pgshunt/error.h"

struct spill {
    struct spill *next; /* the owner's list */
    uint32_t xid;
    bool skipped; /* it came from the other stream */
    bool reading;
    int fd;
    char *buffer; /* unwritten, or unread, bytes */
    size_t start, end;
    uint32_t *aborted; /* xids */
    size_t naborted, room;
    char *message; /* the newest read */
    size_t message_room;
};

/* In $TMPDIR, or /tmp. NULL: errno says why. */
struct spill *spill_open(uint32_t xid);
void spill_close(struct spill *spill);
/* False: errno says why. */
MUST_CHECK bool spill_write(struct spill *spill, const char *bytes, size_t length);
void spill_abort(struct spill *spill, uint32_t xid);
/* Ends writing. */
MUST_CHECK bool spill_rewind(struct spill *spill);
/* The next message, good until the one after; NULL with *length 0: the end, with 1: failed, errno says why. */
const char *spill_read(struct spill *spill, size_t *length);
/* After spill_rewind(). */
bool spill_is_aborted(const struct spill *spill, uint32_t xid);

#endif

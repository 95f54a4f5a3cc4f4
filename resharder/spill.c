/* spill.c: a streamed transaction in a file, until it is committed. */
#include "resharder/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pgshunt/arena.h"

#define BUFFER (64 * 1024)

struct spill *spill_open(uint32_t xid)
{
    char path[512];
    const char *folder = getenv("TMPDIR");
    int used = snprintf(path, sizeof path, "%s/pgshunt-stream-XXXXXX",
                        folder && *folder ? folder : "/tmp");
    if (used < 0 || (size_t)used >= sizeof path) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return NULL;
    unlink(path);
    struct spill *spill = mem_alloc(sizeof *spill);
    spill->xid = xid;
    spill->fd = fd;
    spill->buffer = mem_alloc(BUFFER);
    return spill;
}

void spill_close(struct spill *spill)
{
    if (!spill)
        return;
    close(spill->fd);
    free(spill->buffer);
    free(spill->aborted);
    free(spill->message);
    free(spill);
}

/* ---- writing ---- */

static bool write_all(int fd, const char *bytes, size_t length)
{
    while (length) {
        ssize_t done = write(fd, bytes, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        bytes += done;
        length -= (size_t)done;
    }
    return true;
}

static bool flush(struct spill *spill)
{
    size_t length = spill->end;
    spill->end = 0;
    return write_all(spill->fd, spill->buffer, length);
}

static bool put(struct spill *spill, const void *bytes, size_t length)
{
    if (spill->end + length > BUFFER && !flush(spill))
        return false;
    if (length > BUFFER)
        return write_all(spill->fd, bytes, length);
    memcpy(spill->buffer + spill->end, bytes, length);
    spill->end += length;
    return true;
}

bool spill_write(struct spill *spill, const char *bytes, size_t length)
{
    uint32_t size = (uint32_t)length; /* a message is at most a gigabyte */
    return put(spill, &size, sizeof size) && put(spill, bytes, length);
}

void spill_abort(struct spill *spill, uint32_t xid)
{
    if (spill->naborted == spill->room) {
        spill->room = spill->room ? 2 * spill->room : 64;
        spill->aborted = mem_realloc(spill->aborted, spill->room * sizeof *spill->aborted);
    }
    spill->aborted[spill->naborted++] = xid;
}

/* ---- reading ---- */

static int compare(const void *a, const void *b)
{
    uint32_t first = *(const uint32_t *)a, second = *(const uint32_t *)b;
    return (first > second) - (first < second);
}

bool spill_rewind(struct spill *spill)
{
    if (!flush(spill) || lseek(spill->fd, 0, SEEK_SET) < 0)
        return false;
    if (spill->naborted)
        qsort(spill->aborted, spill->naborted, sizeof *spill->aborted, compare);
    spill->reading = true;
    spill->start = 0;
    return true;
}

/* False: at the end of the file (errno 0), or failed. */
static bool get(struct spill *spill, char *bytes, size_t length)
{
    while (length) {
        if (spill->start == spill->end) {
            ssize_t done = read(spill->fd, spill->buffer, BUFFER);
            if (done < 0 && errno == EINTR)
                continue;
            errno = done == 0 ? 0 : errno;
            if (done <= 0)
                return false;
            spill->start = 0;
            spill->end = (size_t)done;
        }
        size_t left = spill->end - spill->start, some = left < length ? left : length;
        memcpy(bytes, spill->buffer + spill->start, some);
        spill->start += some;
        bytes += some;
        length -= some;
    }
    return true;
}

const char *spill_read(struct spill *spill, size_t *length)
{
    uint32_t size;
    *length = 0;
    if (!get(spill, (char *)&size, sizeof size)) {
        *length = errno != 0;
        return NULL;
    }
    if (size + (size_t)1 > spill->message_room) {
        spill->message_room = size + (size_t)1;
        spill->message = mem_realloc(spill->message, spill->message_room);
    }
    if (!get(spill, spill->message, size)) {
        errno = errno ? errno : EIO; /* ours, and too short */
        *length = 1;
        return NULL;
    }
    *length = size;
    return spill->message;
}

bool spill_is_aborted(const struct spill *spill, uint32_t xid)
{
    return spill->naborted &&
           bsearch(&xid, spill->aborted, spill->naborted, sizeof *spill->aborted, compare) != NULL;
}

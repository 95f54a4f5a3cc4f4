/* fuzz_position.c: any bytes as pgshunt.read_after: what is taken reads the same when written anew. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/position.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const char *shard, const struct position *position)
{
    struct buffer text = {0};
    char name[32];
    struct position again;
    position_put(&text, shard, position);
    buffer_append(&text, "", 1);
    const char *at = buffer_head(&text);
    if (position_take(&at, name, sizeof name, &again) != POSITION_TAKEN || *at ||
        strcmp(name, shard) != 0 || again.timeline != position->timeline ||
        again.lsn != position->lsn || again.timeline <= 0)
        abort();
    buffer_release(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), name[32];
    struct position position;
    memcpy(text, data, size);
    text[size] = '\0';
    const char *at = text, *before = text;
    enum position_taken taken;
    while ((taken = position_take(&at, name, sizeof name, &position)) == POSITION_TAKEN) {
        if (at <= before)
            abort();
        before = at;
        check_again(name, &position);
    }
    if (taken == POSITION_END && *at)
        abort();
    free(text);
    return 0;
}

/* fuzz_startup.c: any bytes as a startup packet. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/startup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guc_set *settings = NULL;
    struct startup startup;
    struct pg_error error;
    struct buffer out = {0};
    if (startup_parse((const char *)data, size, &settings, &startup, &error)) {
        if (!startup.user[0] || !startup.database[0])
            abort();
        guc_difference(NULL, settings, &out);
        startup_put_negotiation(&out, (const char *)data, size);
    } else if (!error.sqlstate || !error.message) {
        abort();
    }
    buffer_release(&out);
    guc_set_release(&settings);
    return 0;
}

/* fuzz_partition.c: texts about partitions, of users and of servers: intervals, times, bounds, schedules, names. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "partition/bound.h"
#include "partition/name.h"
#include "partition/schedule.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was read is printed, and read again as the same. */
static void check_point(enum control control, int64_t point)
{
    char text[BOUND_TEXT];
    int64_t again;
    if (control == CONTROL_TEXT || !bound_print(control, 0, point, text))
        return;
    if (!bound_read(control, text, &again))
        abort();
    if (control == CONTROL_ID && again != point)
        abort();
}

static void try_bounds(const char *text)
{
    for (int i = 0; i < CONTROLS; i++) {
        struct bound_range range;
        int64_t point;
        if (bound_read((enum control)i, text, &point))
            check_point((enum control)i, point);
        if (bound_read_range((enum control)i, text, &range))
            check_point((enum control)i, range.from);
    }
}

static void try_interval(const char *text)
{
    struct interval interval, again;
    char printed[INTERVAL_TEXT], name[NAME_SIZE];
    if (!interval_parse(text, &interval))
        return;
    if (!interval_parse(interval_print(&interval, printed), &again) ||
        again.count != interval.count || again.unit != interval.unit)
        abort();
    int64_t begin = interval_floor(&interval, 0, 0);
    if (begin > 0 || interval_step(&interval, begin, 1) <= 0)
        abort();
    name_of(text, name_usual_format(&interval), &interval, begin, name);
    if (strlen(name) >= NAME_SIZE)
        abort();
}

static void try_schedule(const char *text)
{
    struct cron cron;
    int64_t found;
    if (cron_parse(text, &cron) && cron_before(&cron, 1000 * USECS_OF_DAY, &found) &&
        found > 1000 * USECS_OF_DAY)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct interval month = {UNIT_MONTH, 1};
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    try_bounds(text);
    try_interval(text);
    try_schedule(text);
    if (!name_refuses(text, &month)) {
        char name[NAME_SIZE];
        name_of("t", text, &month, 0, name);
    }
    free(text);
    return 0;
}

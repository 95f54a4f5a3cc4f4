/* load.c: from the time that small transactions take to the length of pauses. */
#include "resharder/load.h"

#include <stdlib.h>
#include <string.h>

#define BRAKE_FIRST 500
#define BRAKE_STEP 500

static int compare(const void *a, const void *b)
{
    double one = *(const double *)a, other = *(const double *)b;
    return (one > other) - (one < other);
}

static double median(const struct load *load)
{
    double sorted[LOAD_SAMPLES];
    memcpy(sorted, load->samples, sizeof sorted);
    qsort(sorted, LOAD_SAMPLES, sizeof *sorted, compare);
    return sorted[LOAD_SAMPLES / 2];
}

static bool is_too_much(const struct load *load)
{
    double limit = load->alone_ms * load->percent / 100;
    return load->with_ms > (limit > LOAD_FLOOR_MS ? limit : LOAD_FLOOR_MS);
}

static int next_brake(const struct load *load)
{
    if (!is_too_much(load))
        return load->brake > BRAKE_STEP ? load->brake - BRAKE_STEP : 0;
    int brake = load->brake ? 2 * load->brake : BRAKE_FIRST;
    return brake < LOAD_BRAKE_MOST ? brake : LOAD_BRAKE_MOST;
}

enum load_verdict load_take(struct load *load, double ms, bool alone)
{
    if (alone != load->alone)
        load->count = 0;
    load->alone = alone;
    load->samples[load->count++] = ms;
    if (load->count < LOAD_SAMPLES)
        return LOAD_UNDECIDED;
    load->count = 0;
    if (alone) {
        load->alone_ms = median(load);
        return LOAD_SAME;
    }
    load->with_ms = median(load);
    int before = load->brake;
    load->brake = next_brake(load);
    if (!before == !load->brake)
        return LOAD_SAME;
    return before ? LOAD_RELEASES : LOAD_BRAKES;
}

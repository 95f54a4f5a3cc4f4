/* load.c: from the time that small transactions take, and how many there are, to the length of pauses. */
#include "resharder/load.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BRAKE_FIRST 500
#define BRAKE_STEP 500
#define KEEP_LEAST 50
#define KEEP_MOST 95

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

bool load_is_slow(const struct load *load)
{
    double limit = load->alone_ms * load->percent / 100;
    return load->with_ms > (limit > LOAD_FLOOR_MS ? limit : LOAD_FLOOR_MS);
}

bool load_is_calm(const struct load *load)
{
    return !load->brake && load->with_pace.us > 0 && load->with_ms < LOAD_FLOOR_MS / 2 &&
           load->with_pace.count < LOAD_COUNT_LEAST / 2;
}

int load_keep(int percent)
{
    int keep = 100 - (percent - 100) / 5;
    return keep < KEEP_LEAST ? KEEP_LEAST : keep > KEEP_MOST ? KEEP_MOST : keep;
}

double load_per_second(const struct load_pace *pace)
{
    return pace->us > 0 ? pace->count * 1e6 / pace->us : 0;
}

/* By more than chance: transactions that come as they like vary by the root of their number. */
static bool are_too_few(const struct load *load)
{
    const struct load_pace *alone = &load->alone_pace, *with = &load->with_pace;
    if (alone->count < LOAD_COUNT_LEAST || with->us <= 0)
        return false;
    double chance = 1 + sqrt(1 / alone->count + 1 / (with->count + 1));
    return load_per_second(with) * chance < load_per_second(alone) * load_keep(load->percent) / 100;
}

static int next_brake(const struct load *load, bool too_much)
{
    if (!too_much)
        return load->brake > BRAKE_STEP ? load->brake - BRAKE_STEP : 0;
    int brake = load->brake ? 2 * load->brake : BRAKE_FIRST;
    return brake < LOAD_BRAKE_MOST ? brake : LOAD_BRAKE_MOST;
}

static struct load_pace pace(const struct load *load, const struct load_sample *last)
{
    const struct load_sample *first = &load->first;
    if (!first->transactions || last->transactions < first->transactions)
        return (struct load_pace){0};
    return (struct load_pace){(double)(last->transactions - first->transactions),
                              (double)(last->at - first->at)};
}

static enum load_verdict judge(struct load *load, int64_t now)
{
    int before = load->brake;
    bool slow = load_is_slow(load), few = !slow && are_too_few(load);
    if (few && now - load->alone_at > LOAD_FRESH_US)
        return LOAD_DOUBTS;
    load->brake = next_brake(load, slow || few);
    if (!before == !load->brake)
        return LOAD_SAME;
    return before ? LOAD_RELEASES : LOAD_BRAKES;
}

enum load_verdict load_take(struct load *load, const struct load_sample *sample, bool alone)
{
    if (alone != load->alone || !load->count) {
        load->count = 0;
        load->first = *sample;
    }
    load->alone = alone;
    load->samples[load->count++ % LOAD_SAMPLES] = sample->ms;
    if (load->count < LOAD_SAMPLES || sample->at - load->first.at < LOAD_SPAN_US)
        return LOAD_UNDECIDED;
    load->count = 0;
    if (alone) {
        load->alone_ms = median(load);
        load->alone_pace = pace(load, sample);
        load->alone_at = sample->at;
        return LOAD_SAME;
    }
    load->with_ms = median(load);
    load->with_pace = pace(load, sample);
    return judge(load, sample->at);
}

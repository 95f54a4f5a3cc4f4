/*
 * load.h: how hard a source may be worked (pure): decided by what a small transaction takes there with the copy and without,
 * and by how many transactions that write the applications have done.
 *
 * The work is laid down for a moment now and then, and what was measured alone is what counts from then on: load that comes
 * and goes with the day is not the copy's. Applications that do less may just have less to do: that is only believed of what
 * was measured alone right before. Beyond the limits the pauses between pieces double, within they shorten step by step.
 */
#ifndef PGSHUNT_RESHARDER_LOAD_H
#define PGSHUNT_RESHARDER_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#define LOAD_SAMPLES 5        /* the median of the newest is what counts */
#define LOAD_SPAN_US 300000   /* samples are taken for so long at least */
#define LOAD_FRESH_US 3000000 /* what was measured alone is no news after that */
#define LOAD_COUNT_LEAST 50   /* of fewer transactions nothing is concluded */
#define LOAD_PERCENT 150      /* the limit where none is given */
#define LOAD_FLOOR_MS 5.0     /* less is never too much */
#define LOAD_BRAKE_MOST 16000

struct load_sample {
    double ms;             /* a small transaction took */
    int64_t at;            /* microseconds, of a clock that goes on */
    uint64_t transactions; /* that have written so far; 0: unknown */
};

/* How many transactions were counted in which time. */
struct load_pace {
    double count, us;
};

struct load {
    int percent; /* of what it takes alone */
    double samples[LOAD_SAMPLES];
    int count;                /* of samples taken */
    struct load_sample first; /* of them */
    bool alone;               /* the samples are without the copy */
    double alone_ms;          /* newest medians */
    double with_ms;
    struct load_pace alone_pace, with_pace; /* newest */
    int64_t alone_at;                       /* when `alone_...` was known; 0: it is not */
    int brake;                              /* rest, in thousandths of the time worked */
};

enum load_verdict {
    LOAD_UNDECIDED, /* more samples are wanted */
    LOAD_SAME,
    LOAD_BRAKES,   /* it begins to slow down */
    LOAD_RELEASES, /* at full speed again */
    LOAD_DOUBTS,   /* it should be measured alone again, now */
};

/* A sample; those of the other kind before it are forgotten. */
enum load_verdict load_take(struct load *load, const struct load_sample *sample, bool alone);
/* Whether transactions take too long (else, where it brakes, there are too few). */
bool load_is_slow(const struct load *load);
/* Whether neither limit could be broken by far: there is nobody to be kind to. */
bool load_is_calm(const struct load *load);
/* How much of what applications do alone they are to be left, in per cent, by the limit of the time. */
int load_keep(int percent);
double load_per_second(const struct load_pace *pace);

#endif

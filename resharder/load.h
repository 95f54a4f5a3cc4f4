/*
 * load.h: how hard a source may be worked (pure): decided by what a small transaction takes there with the copy and without.
 *
 * The work is laid down for a moment now and then, and the time taken alone is what counts from then on: load that comes and
 * goes with the day is not the copy's. Above the limit the pauses between pieces double, below it they shorten step by step.
 */
#ifndef PGSHUNT_RESHARDER_LOAD_H
#define PGSHUNT_RESHARDER_LOAD_H

#include <stdbool.h>

#define LOAD_SAMPLES 5    /* their median is what counts */
#define LOAD_PERCENT 150  /* the limit where none is given */
#define LOAD_FLOOR_MS 5.0 /* less is never too much */
#define LOAD_BRAKE_MOST 16000

struct load {
    int percent; /* of what it takes alone */
    double samples[LOAD_SAMPLES];
    int count;
    bool alone;      /* the samples are without the copy */
    double alone_ms; /* newest medians */
    double with_ms;
    int brake; /* rest, in thousandths of the time worked */
};

enum load_verdict {
    LOAD_UNDECIDED, /* more samples are wanted */
    LOAD_SAME,
    LOAD_BRAKES,   /* it begins to slow down */
    LOAD_RELEASES, /* at full speed again */
};

/* A sample; those of the other kind before it are forgotten. */
enum load_verdict load_take(struct load *load, double ms, bool alone);

#endif

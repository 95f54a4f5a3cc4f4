/* create.h: what the commands that begin, change and end policies share: the table looked at on all shards. */
#ifndef PGSHUNT_PARTITION_CREATE_H
#define PGSHUNT_PARTITION_CREATE_H

#include "partition/maintain.h"

struct creating {
    struct work work;
    const struct partition_wish *wish;
    struct policy policy;
    struct parent *parents; /* per shard; texts in work's arena */
    struct aim aim;         /* of partition_create() */
    bool clear;             /* nothing is in the way of making it a partitioned one */
    bool whole; /* it is to have all partitions from the first on, not only those to come */
};

/*
 * Opens everything, and names the table. `wants_policy`: it has to have one, which is read; else it must have none. False: told
 * why. creating_end() in any case.
 */
MUST_CHECK bool creating_begin(struct creating *creating, const struct partition_call *call,
                               const struct partition_wish *wish, bool wants_policy);
enum fleet_outcome creating_end(struct creating *creating);
/* Fills `parents`. False: told why (a shard could not be asked, or has to have the table). */
MUST_CHECK bool creating_look(struct creating *creating);
/* Tells what is wrong with the kind of table that was found; `adopting`: it has to have partitions. */
void creating_check(struct creating *creating, bool adopting);
/* Finds the policy's column and control. False: told why not. */
MUST_CHECK bool creating_control(struct creating *creating);
/* Whether partitions can be divided as the policy says, on every shard. False: told why not. */
MUST_CHECK bool creating_may_divide(struct creating *creating);
/* The first shard that has the table, of those that have to have it; -1: none. */
int creating_first(const struct creating *creating);
void creating_problem(struct creating *creating, int shard, const char *text, const char *mend);
/* Makes what the policy wants (a dry run: says so). */
void creating_maintain(struct creating *creating);
/* Records the policy and makes what it wants. */
void creating_record(struct creating *creating);

#endif

/*
 * clone.h: jobs whose target is a physical replica of their source, promoted instead of copied (`--clone`).
 *
 *   created --clone_prepare--> copying --clone_run: replayed, promoted, marked, reset, cleared--> indexing and on, as any job
 *
 * The replica's recovery ends at a position P of the source's WAL, which its timeline's history tells exactly: what was
 * committed before P is on the clone, and a stream that begins at P brings all else. docs/internals/resharding.md has more.
 */
#ifndef PGSHUNT_RESHARDER_CLONE_H
#define PGSHUNT_RESHARDER_CLONE_H

#include "resharder/check.h"
#include "resharder/job.h"

/* Which cluster a server is, and what it has been through. */
struct clone_identity {
    const char *system; /* its identifier */
    unsigned timeline;
    const char *history; /* one line for each timeline before; "": there was none */
};

bool clone_is(const struct job *job);
/* The one link that such a job has. */
struct link clone_link(struct reshard *reshard);

/* ---- clone_check.c ---- */

/* Everything that keeps the target from being the source's clone, told. False: told as a failure. */
MUST_CHECK bool clone_check(struct check *check, unsigned target);
/* What is to be known of it later, as options of the job; after clone_check(). */
json_t *clone_json(const struct check *check);

/* ---- clone_run.c ---- */

/* Publication and slot on the source, and the position that the replica must have reached when it is promoted. */
MUST_CHECK bool clone_prepare(struct reshard *reshard, struct job *job);
/*
 * Everything between that and streams; goes on after what passes. False: reshard->error, or the job is in another state than
 * `copying`.
 */
MUST_CHECK bool clone_run(struct reshard *reshard, struct job *job,
                          const struct reshard_run_options *options);

/* ---- clone_end.c ---- */

/* Whether the target is a primary by now; its session is reshard_primary()'s then. */
bool clone_is_promoted(struct reshard *reshard);
/*
 * The job is cancelled: says what is to become of the server. Of one that is no primary, or away, nothing that the job has made
 * there is removed, and it is struck out.
 */
MUST_CHECK bool clone_leave(struct reshard *reshard, const struct job *job);
/* The mark goes: it is a shard like any other from now on. */
MUST_CHECK bool clone_settle(struct reshard *reshard);
/* How far it is, as a fact. */
void clone_tell(struct reshard *reshard, const struct job *job);

/* ---- what its parts share ---- */

#define CLONE_OBJECT "clone"        /* kind of job_object, with these names: */
#define CLONE_POSITION "position"   /* what the replica must have when it is promoted */
#define CLONE_PROMOTION "promotion" /* it was asked for */
#define CLONE_PREPARED "prepared"   /* proxies have finished something on both sides */

/* In reshard's arena; asks the shard's primary, or its only node. False: reshard->error. */
MUST_CHECK bool clone_identify(struct reshard *reshard, unsigned shard,
                               struct clone_identity *identity);
/* Where the timeline ended and the next one began, "0/3000148", in reshard's arena; NULL: the history does not have it. */
const char *clone_end_of(struct reshard *reshard, const char *history, unsigned timeline);
/* The detail that the job has recorded of the object; NULL: nothing. False: reshard->error. */
MUST_CHECK bool clone_recorded(struct reshard *reshard, const struct job *job, const char *name,
                               const char **detail);
/*
 * A session with the clone that is no other server: it has the job's mark. NULL: reshard->error. The caller closes it.
 */
struct db *clone_open(struct reshard *reshard, const struct job *job);
/* Always false, with reshard->error set. */
bool clone_fails(struct reshard *reshard, const char *sqlstate, const char *text, const char *hint);

/* clone_reset.c: what is the source's alone is taken off it; all of it may be called again, before streams begin. */
/*
 * Of what was prepared on the source when the replica was promoted, the clone has a copy: it is rolled back, for the stream
 * brings it, or left to proxies where its outcome may be decided. *late: some were (ever) left.
 */
MUST_CHECK bool clone_finish_prepared(struct reshard *reshard, const struct job *job, bool *late);
MUST_CHECK bool clone_reset(struct reshard *reshard, const struct job *job);
/* Ids are this shard's own. */
MUST_CHECK bool clone_number(struct reshard *reshard);
/* clone_clear.c: rows that do not move leave the clone, keys of those that do go into the source's table of ghost keys. */
MUST_CHECK bool clone_clear(struct reshard *reshard, const struct job *job,
                            const struct reshard_run_options *options);

#endif

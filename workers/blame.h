/* Which attempt the worker was working on, in memory that outlives it: when the worker dies of a
 * subtask (its answer, its prompt, the provider's code for it), the next start knows of which one,
 * and the others that ran beside it are not blamed.
 *
 * It is a page of the file home/spool/NAME.now, mapped: writing costs a copy of the words. */
#ifndef WORKERS_BLAME_H
#define WORKERS_BLAME_H

struct blame;

/* An attempt by its words; borrowed. */
struct blame_for {
    const char *task, *sub, *token;
};

/* Never fails the caller: without the file (which is logged) nobody is blamed. */
struct blame *blame_new(const char *path);
void blame_free(struct blame **blame); /* accepts NULL; nobody is at work any more */

/* The attempt that was being worked on when the worker died; token "": none was, or nobody knows.
 * Good as long as the blame. */
struct blame_for blame_last(const struct blame *blame);

/* Code begins to work on something that came from outside for this attempt, and has come through.
 * Both accept NULL. Not nested: the last one that entered counts. */
void blame_enter(struct blame *blame, const struct blame_for *attempt);
void blame_leave(struct blame *blame);

#endif

/* Named points where a test makes the process die as if by kill -9; nothing in other builds.
 *
 * ORCH_FAILPOINT=NAME:K kills the process the K-th time it reaches failpoint NAME. */
#ifndef COMMON_FAILPOINT_H
#define COMMON_FAILPOINT_H

#ifdef ORCH_TESTING
void failpoint_reach(const char *name);
#define FAILPOINT(name) failpoint_reach(name)
#else
#define FAILPOINT(name) ((void)0)
#endif

#endif

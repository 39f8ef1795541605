/* Named points where a test makes the process die as if by kill -9, or stand still; nothing in
 * builds without tests.
 *
 * ORCH_FAILPOINT=NAME:K[:ACTION] acts the K-th time that failpoint NAME is reached: `kill` (without
 * ACTION) raises SIGKILL, `stop` SIGSTOP. ORCH_FAILPOINT_LOG=FILE writes into FILE which failpoints
 * were reached and how often, a line "NAME COUNT" each, padded to FAILPOINT_LINE bytes: it is right
 * at every moment, also when the process was killed, so that a test need not know any names. */
#ifndef COMMON_FAILPOINT_H
#define COMMON_FAILPOINT_H

#define FAILPOINT_LINE 64
#define FAILPOINT_LINES 1024

#ifdef ORCH_TESTING
/* The failpoint `part`, or with a second word `part.what`. Any thread. */
void failpoint_reach(const char *part, const char *what);
#define FAILPOINT(name) failpoint_reach(name, NULL)
#define FAILPOINT_OF(part, what) failpoint_reach(part, what)
#else
#define FAILPOINT(name) ((void)0)
#define FAILPOINT_OF(part, what) ((void)0)
#endif

#endif

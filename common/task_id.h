/* Task ids, subtask ids and the shard that a task lives in. */
#ifndef COMMON_TASK_ID_H
#define COMMON_TASK_ID_H

#include <stdbool.h>
#include <stddef.h>

#define TASK_ID_SIZE 24 /* with the NUL */
#define SUB_ID_MAX 64   /* bytes, without the NUL */

/* "t" + 9 characters of time + 7 of randomness, base 32 in lower case (Crockford): ids sort by
 * time of creation. */
void task_id_make(char ret[TASK_ID_SIZE]);
bool task_id_valid(const char *id);
/* A subtask id: 1..64 of A-Z a-z 0-9 . _ - ; those that start with "_" are the system's own. */
bool sub_id_valid(const char *id);
/* FNV-1a of the id modulo SHARD_COUNT: 0..63. */
int task_shard(const char *id);
/* A random name of a start of a process: 16 hex digits. */
void boot_nonce_make(char ret[17]);

#endif

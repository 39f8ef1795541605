-- Included by all that touch a task, T. task_key and so on are KEYS, by their names in
-- queue_internal.h. A subtask is a line of words, field sub:<id> of the task: state, attempts,
-- attempts left, dependencies to wait for, ready since (us), us that it waited before its last
-- attempt, class of the last failure, most attempts, priority, expands (0 no, 1 yes, 2 has been),
-- place in the task, and the record `meta`. Its last attempt is the line run:<id>: token, worker, arm.
-- Scripts that run for every subtask (submit, claim, commit) work on batches (queue_batch.c):
-- "next task" there stands for taking the next task's keys; its arguments are ARGV[at..last].
local call, match, sub = redis.call, string.match, string.sub

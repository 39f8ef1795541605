-- Included by all that touch a task. ARGV[1] is always the task. task_key and so on are KEYS, by
-- their names in queue_internal.h. A subtask is a line of words, field sub:<id> of the task: state,
-- attempts, attempts left, dependencies to wait for, ready since (us), us that it waited before its
-- last attempt, class of the last failure, most attempts, priority, expands (0 no, 1 yes, 2 has
-- been), place in the task. Its last attempt is the line run:<id>: token, worker, arm.
-- Scripts that run for every subtask (submit, claim, commit, renew) include the other libraries
-- only where they need them: a function costs as much as a redis.call when it is made.
local call, match, sub = redis.call, string.match, string.sub
local T = ARGV[1]

#!lua
-- Everything that is not terminal becomes CANCELLED. T. OK, DUP, STALE, GONE.
-- include lib
-- include lib_line
-- include lib_ready
-- include lib_over
local state = call('HGET', task_key, 'state')
if not state then return 'GONE' end
if state == 'CANCELLED' then return 'DUP' end
if state ~= 'RUNNING' and state ~= 'LOADING' then return 'STALE' end
local ms = sub(clock(), 1, -4)
local cancelled, ran = cancel_rest(true)
for id, s in pairs(ran) do
    log(ms, 'cancelled', id, s[ATT], call('HGET', task_key, 'run:' .. id) or '- - -', '-', '')
end
finish('CANCELLED', 'task-cancelled', cancelled .. ' cancelled')
told()
return 'OK'

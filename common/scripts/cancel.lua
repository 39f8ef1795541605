#!lua
-- Everything that is not terminal becomes CANCELLED. T. OK, DUP, STALE, GONE.
local state = call('HGET', task_key, 'state')
if not state then return 'GONE' end
if state == 'CANCELLED' then return 'DUP' end
if state ~= 'RUNNING' and state ~= 'LOADING' then return 'STALE' end
local ms = floor(clock() / 1000)
local cancelled, ran = cancel_rest(true)
for id, s in pairs(ran) do
    log('cancelled', id, s, '-', '')
end
finish('CANCELLED', ms, 'task-cancelled', cancelled .. ' cancelled')
return 'OK'

#!lua
-- Everything that is not terminal becomes CANCELLED. T. OK, DUP, STALE, GONE.
-- include lib
-- include lib_line
-- include lib_ready
-- include lib_over
-- include lib_run
local state = call('HGET', task_key, 'state')
if not state then return 'GONE' end
if state == 'CANCELLED' then return 'DUP' end
if state ~= 'RUNNING' and state ~= 'LOADING' then return 'STALE' end
local ms = sub(clock(), 1, -4)
local cancelled, ran = cancel_rest(true)
for id in pairs(ran) do
    for _, attempt in ipairs(read_run(call('HGET', task_key, 'run:' .. id) or '')) do
        log(ms, 'cancelled', id, attempt.number, attempt.words, '-', '')
    end
end
finish('CANCELLED', 'task-cancelled', cancelled .. ' cancelled')
told()
return 'OK'

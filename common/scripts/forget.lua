#!lua flags=allow-oom
-- Removes a finished task. T. OK, GONE, STALE.
-- include lib
local state = call('HGET', task_key, 'state')
if not state then return 'GONE' end
if state == 'RUNNING' or state == 'LOADING' then return 'STALE' end
local all = call('HGETALL', task_key)
for i = 1, #all, 2 do
    local id = match(all[i], '^sub:(.+)$')
    local line_state = id and match(all[i + 1], '^%u+')
    if line_state == 'DEAD' then
        call('ZREM', dead_key, T .. '/' .. id)
    elseif line_state == 'RUNNING' then
        call('ZREM', lease_key, T .. '/' .. id)
    end
end
call('ZREM', tasks_key, T)
call('ZREM', fin_key, T)
call('UNLINK', task_key, data_key, log_key)
return 'OK'

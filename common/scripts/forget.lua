#!lua flags=allow-oom
-- Removes a finished task. T. OK, GONE, STALE.
local state = call('HGET', task_key, 'state')
if not state then return 'GONE' end
if state == 'RUNNING' or state == 'LOADING' then return 'STALE' end
local all = call('HGETALL', sub_key), {}
for i = 1, #all, 2 do
    local s = parse(all[i + 1])
    if s[STATE] == 'DEAD' then
        call('ZREM', dead_key, T .. '/' .. all[i])
    elseif s[STATE] == 'RUNNING' then
        call('ZREM', lease_key, T .. '/' .. all[i])
    end
end
call('ZREM', tasks_key, T)
call('ZREM', fin_key, T)
call('UNLINK', task_key, sub_key, in_key, succ_key, res_key, log_key)
return 'OK'

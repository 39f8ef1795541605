#!lua flags=allow-oom
-- Removes a finished task; what is still held for it counts as spent. T. KEYS: also those of the accounts. OK, GONE,
-- STALE; {ACCOUNTS, names...}: whose keys are missing.
-- include lib
-- include lib_line
local state = call('HGET', task_key, 'state')
if not state then return 'GONE' end
if state == 'RUNNING' or state == 'LOADING' then return 'STALE' end
local all, holds = call('HGETALL', task_key), {}
for i = 1, #all, 2 do
    local id = match(all[i], '^hold:(.+)$')
    if id then
        holds[id] = all[i + 1]
    end
end
if next(holds) then
    -- include lib_budget
    local missing = settle_all(holds)
    if missing then return missing end
    write_budgets()
end
for i = 1, #all, 2 do
    local id = match(all[i], '^sub:(.+)$')
    local line_state = id and match(all[i + 1], '^%u+')
    if line_state == 'DEAD' then
        call('ZREM', dead_key, T .. '/' .. id)
    elseif line_state == 'RUNNING' or holds[id] then
        call('ZREM', lease_key, T .. '/' .. id)
    end
end
call('ZREM', tasks_key, T)
call('ZREM', fin_key, T)
call('UNLINK', task_key, data_key, log_key)
return 'OK'

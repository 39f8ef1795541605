#!lua
-- Dead and cancelled subtasks run again, with fresh attempts; what they still hold counts as spent. T, the task's
-- budget from now on in nano USD, and in tokens; -1: as it was. KEYS: also those of the accounts. OK, GONE, STALE,
-- CONFLICT (of that more is spent and held already); {ACCOUNTS, names...}: whose keys are missing.
-- include lib
-- include lib_line
-- include lib_ready
-- include lib_over
local task = call('HMGET', task_key, 'state', 'chunks')
if not task[1] then return 'GONE' end
if (task[1] ~= 'FAILED' and task[1] ~= 'CANCELLED') or task[2] then return 'STALE' end
local limits = {ARGV[2], ARGV[3]}
-- Where there is nothing to change: nil. A task that had no budget knows what it has cost, but no tokens.
local function new_budget()
    if limits[1] == '-1' and limits[2] == '-1' then return nil end
    local old = call('HMGET', task_key, 'budget', 'cost')
    local sums = {match(old[1] or '0 0 ' .. (old[2] or 0) .. ' 0 0 0', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)( ?%l*)$')}
    if not sums[1] then return error(redis.error_reply('DAMAGED budget is not readable in ' .. task_key)) end
    for unit = 1, 2 do
        if limits[unit] ~= '-1' then
            sums[unit] = limits[unit]
        end
    end
    return sums
end
local budget = new_budget()
for unit = 1, budget and 2 or 0 do
    local limit = tonumber(budget[unit])
    if limit > 0 and limit < tonumber(budget[2 + unit]) + tonumber(budget[4 + unit]) then return 'CONFLICT' end
end
local all, state_of, deps = call('HGETALL', task_key), {}, {}
local again, planners, held, holds = {}, {}, {}, {}
for i = 1, #all, 2 do
    local kind, id = match(all[i], '^(%l+):(.+)$')
    if kind == 'deps' then
        deps[id] = all[i + 1]
    elseif kind == 'hold' then
        held[id] = all[i + 1]
    elseif kind == 'sub' then
        local s = parse(all[i + 1])
        if not s[STATE] then return damaged(id) end
        state_of[id] = s[STATE]
        if s[STATE] == 'DEAD' or s[STATE] == 'CANCELLED' then
            again[#again + 1] = {id = id, s = s}
        elseif s[STATE] == 'DONE' and s[EXP] == '1' then
            planners[#planners + 1] = {id = id, s = s}
        end
    end
end
local function by_order(a, b)
    return tonumber(match(a.s[ORD], '^%d+')) < tonumber(match(b.s[ORD], '^%d+'))
end
table.sort(again, by_order)
table.sort(planners, by_order)
for _, r in ipairs(again) do
    r.waits = 0
    for dep in string.gmatch(deps[r.id] or '', '%S+') do
        if not state_of[dep] then return damaged(dep) end
        if state_of[dep] ~= 'DONE' then
            r.waits = r.waits + 1
        end
    end
    holds[r.id] = held[r.id]
end
if next(holds) then
    -- include lib_budget
    local missing = settle_all(holds)
    if missing then return missing end
    write_budgets()
end

-- Nothing below may fail.
local us = clock()
budget = new_budget() -- with what has been settled
if budget then
    call('HSET', task_key, 'budget', concat(budget, ' ', 1, 6) .. budget[7])
end
call('HSET', task_key, 'state', 'RUNNING')
call('HDEL', task_key, 'finished')
call('ZREM', fin_key, T)
event('TASK', '-', NOBODY, 'RUNNING', '', '')
log(sub(us, 1, -4), 'retried', '-', 0, '- - -', '-', #again .. ' run again')
local ready = {}
for _, r in ipairs(again) do
    local s = r.s
    if s[STATE] == 'DEAD' then
        call('ZREM', dead_key, T .. '/' .. r.id)
    end
    if holds[r.id] then
        call('ZREM', lease_key, T .. '/' .. r.id)
    end
    call('HDEL', task_key, 'avoid:' .. r.id, 'error:' .. r.id, 'run:' .. r.id)
    s[STATE], s[LEFT], s[INDEG], s[CLASS] = 'BLOCKED', s[MAX], r.waits, '-'
    if r.waits == 0 then
        ready[#ready + 1] = r
    else
        call('HSET', task_key, 'sub:' .. r.id, concat(s, ' '))
    end
end
make_ready(ready, us)
-- A plan that was not carried out is told again.
for _, r in ipairs(planners) do
    event('DONE', r.id, r.s, '-', '', '')
end
told()
return 'OK'

#!lua
-- T, id, token, outcome, timing. OK, DUP, STALE, CANCELLED, GONE.
local id, token, outcome, timing = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local line = call('HGET', sub_key, id)
if not line then return 'GONE' end
local s = parse(line)
local state = s[STATE]
if not state then return damaged(id) end
if state == 'CANCELLED' then return 'CANCELLED' end
if s[TOK] ~= token then return 'STALE' end
if state == 'DONE' then return 'DUP' end
if state ~= 'RUNNING' then return 'STALE' end
local task = call('HMGET', task_key, 'state', 'remaining', 'total')
local remaining = tonumber(task[2])
if not remaining then return damaged(id) end

-- Successors that wait for this one: one less to wait for.
local ready, lines = {}, {sub_key}
local next_ids = {}
local succ = task[3] ~= '1' and call('HGET', succ_key, id)
if succ then
    for next_id in string.gmatch(succ, '%S+') do
        next_ids[#next_ids + 1] = next_id
    end
    local found, seen = hmget(sub_key, next_ids), {}
    for i, next_id in ipairs(next_ids) do
        if not found[i] then return damaged(next_id) end
        local n = seen[next_id] or {id = next_id, s = parse(found[i])}
        if not n.s[STATE] then return damaged(next_id) end
        if n.s[STATE] == 'BLOCKED' then
            n.s[INDEG] = n.s[INDEG] - 1
            if n.s[INDEG] <= 0 then
                n.s[STATE] = 'READY'
                ready[#ready + 1] = n
            elseif not seen[next_id] then
                lines[#lines + 1] = n
            end
        end
        seen[next_id] = n
    end
end

-- Nothing below may fail.
local us = clock()
local ms = floor(us / 1000)
s[STATE] = 'DONE'
call('HSET', sub_key, id, concat(s, ' '))
call('ZREM', lease_key, T .. '/' .. id)
call('HSET', res_key, id, outcome, id .. ':t', timing)
remaining = remaining - 1
local reached = '-'
if remaining <= 0 and (task[1] == 'RUNNING' or task[1] == 'LOADING') then
    reached = 'DONE'
    call('HSET', task_key, 'remaining', remaining, 'state', 'DONE', 'finished', ms)
    call('ZADD', fin_key, ms, T)
else
    call('HSET', task_key, 'remaining', remaining)
end
event('DONE', id, s, reached, timing, '')
log('done', id, s, reached, '')
for i = 2, #lines do
    call('HSET', sub_key, lines[i].id, concat(lines[i].s, ' '))
end
if #ready > 0 then
    local metas = {}
    for i, n in ipairs(ready) do
        metas[i] = n.id .. ':m'
    end
    metas = hmget(in_key, metas)
    for i, n in ipairs(ready) do
        n.meta = metas[i]
    end
    make_ready(ready, us)
end
return 'OK'

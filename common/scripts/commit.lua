#!lua
-- T, id, token, outcome, timing. OK, DUP, STALE, CANCELLED, GONE.
-- include lib
local id, token = ARGV[2], ARGV[3]
local old = call('HMGET', task_key, 'sub:' .. id, 'run:' .. id, 'succ:' .. id, 'state', 'remaining')
if not old[1] then return 'GONE' end
local state, att, rest, prio, exp =
    match(old[1], '^(%u+) (%d+) (%d+ %d+ %d+ %d+ %S+ %d+ (%-?%d+) ([012]) %d+)$')
local run, remaining = old[2] or '', tonumber(old[5])
if not state or not remaining then
    return redis.error_reply('DAMAGED subtask ' .. id .. ' is not readable in ' .. task_key)
end
if state == 'CANCELLED' then return 'CANCELLED' end
if match(run, '^%S+') ~= token then return 'STALE' end
if state == 'DONE' then return 'DUP' end
if state ~= 'RUNNING' then return 'STALE' end

-- Writes; nothing in it may fail.
local function commit()
    remaining = remaining - 1
    local over = remaining <= 0 and (old[4] == 'RUNNING' or old[4] == 'LOADING')
    local reached = over and 'DONE' or '-'
    local ms = match(call('XADD', ev_key, '*', 'DONE ' .. T .. ' ' .. id .. ' ' .. att .. ' ' .. prio .. ' ' .. exp ..
        ' - ' .. reached .. ' ', ARGV[5]), '^%d+')
    local line = 'DONE ' .. att .. ' ' .. rest
    if over then
        call('HSET', task_key, 'sub:' .. id, line, 'remaining', remaining, 'state', 'DONE', 'finished', ms)
        call('ZADD', fin_key, ms, T)
    else
        call('HSET', task_key, 'sub:' .. id, line, 'remaining', remaining)
    end
    call('HSET', data_key, 'outcome:' .. id, ARGV[4], 'timing:' .. id, ARGV[5])
    call('ZREM', lease_key, T .. '/' .. id)
    call('RPUSH', log_key, ms .. ' done ' .. id .. ' ' .. att .. ' ' .. run .. ' - ' .. reached .. ' ')
    call('PUBLISH', log_key, '')
    return 'OK'
end
if not old[3] then
    return commit()
end

-- Successors that wait for this one: one less to wait for.
-- include lib_line
-- include lib_ready
-- include lib_hmget
local ids, seen, ready, waiting = {}, {}, {}, {}
for next_id in string.gmatch(old[3], '%S+') do
    ids[#ids + 1] = next_id
end
local lines = hmget(task_key, 'sub:', ids)
for i, next_id in ipairs(ids) do
    local n = seen[next_id] or {id = next_id, s = parse(lines[i] or '')}
    if not n.s[STATE] then return damaged(next_id) end
    if n.s[STATE] == 'BLOCKED' then
        n.s[INDEG] = n.s[INDEG] - 1
        if n.s[INDEG] <= 0 then
            n.s[STATE] = 'READY'
            ready[#ready + 1] = n
        elseif not seen[next_id] then
            waiting[#waiting + 1] = n
        end
    end
    seen[next_id] = n
end
commit()
for _, n in ipairs(waiting) do
    if n.s[STATE] == 'BLOCKED' then
        call('HSET', task_key, 'sub:' .. n.id, concat(n.s, ' '))
    end
end
ids = {}
for i, n in ipairs(ready) do
    ids[i] = n.id
end
local metas = hmget(data_key, 'meta:', ids)
for i, n in ipairs(ready) do
    n.meta = metas[i]
end
make_ready(ready, clock())
told()
return 'OK'

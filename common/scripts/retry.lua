#!lua
-- Dead and cancelled subtasks run again, with fresh attempts. T. OK, GONE, STALE.
local task = call('HMGET', task_key, 'state', 'chunks')
if not task[1] then return 'GONE' end
if (task[1] ~= 'FAILED' and task[1] ~= 'CANCELLED') or task[2] then return 'STALE' end
local all, subs, deps = call('HGETALL', sub_key), {}, {}
local again, planners = {}, {}
for i = 1, #all, 2 do
    local id = match(all[i], '^(.+):d$')
    if id then
        deps[id] = all[i + 1]
    elseif not string.find(all[i], ':', 1, true) then
        id = all[i]
        local s = parse(all[i + 1])
        if not s[STATE] then return damaged(id) end
        subs[id] = s
        if s[STATE] == 'DEAD' or s[STATE] == 'CANCELLED' then
            again[#again + 1] = {id = id, s = s}
        elseif s[STATE] == 'DONE' and s[EXP] == '1' then
            planners[#planners + 1] = {id = id, s = s}
        end
    end
end
table.sort(again, function(a, b) return tonumber(a.s[ORD]) < tonumber(b.s[ORD]) end)
table.sort(planners, function(a, b) return tonumber(a.s[ORD]) < tonumber(b.s[ORD]) end)
for _, r in ipairs(again) do
    local waits = 0
    for dep in string.gmatch(deps[r.id] or '', '%S+') do
        if not subs[dep] then return damaged(dep) end
        if subs[dep][STATE] ~= 'DONE' then
            waits = waits + 1
        end
    end
    r.waits = waits
end

-- Nothing below may fail.
local us = clock()
call('HSET', task_key, 'state', 'RUNNING')
call('HDEL', task_key, 'finished')
call('ZREM', fin_key, T)
event('TASK', '-', NOBODY, 'RUNNING', '', '')
log('retried', '-', NOBODY, '-', #again .. ' run again')
local ready, metas = {}, {}
for _, r in ipairs(again) do
    local s = r.s
    if s[STATE] == 'DEAD' then
        call('ZREM', dead_key, T .. '/' .. r.id)
    end
    call('HDEL', sub_key, r.id .. ':a', r.id .. ':e')
    s[STATE], s[LEFT], s[INDEG], s[CLASS], s[TOK] = 'BLOCKED', s[MAX], r.waits, '-', '-'
    if r.waits == 0 then
        ready[#ready + 1], metas[#metas + 1] = r, r.id .. ':m'
    else
        call('HSET', sub_key, r.id, concat(s, ' '))
    end
end
metas = hmget(in_key, metas)
for i, r in ipairs(ready) do
    r.meta = metas[i]
end
make_ready(ready, us)
-- A plan that was not carried out is told again.
for _, r in ipairs(planners) do
    event('DONE', r.id, r.s, '-', '', '')
end
return 'OK'

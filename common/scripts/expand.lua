#!lua
-- Adds the children of a planner's result, once. T, parent, nodes... OK, DUP, STALE, GONE, CONFLICT.
local parent = ARGV[2]
local task = call('HMGET', task_key, 'state', 'total', 'remaining')
local line = call('HGET', sub_key, parent)
if not task[1] or not line then return 'GONE' end
local p = parse(line)
local total, remaining = tonumber(task[2]), tonumber(task[3])
if not p[STATE] or not total or not remaining then return damaged(parent) end
if p[EXP] == '2' then return 'DUP' end
if task[1] ~= 'RUNNING' or p[STATE] ~= 'DONE' or p[EXP] ~= '1' then return 'STALE' end

local nodes, expanding, by_id = read_nodes(3, total)
local ids, outside, names = {}, {}, {}
for i, node in ipairs(nodes) do
    ids[i] = node.id
    if by_id[node.id] ~= node then return 'CONFLICT' end
    for _, dep in ipairs(node.deps) do
        if not by_id[dep] and not outside[dep] then
            outside[dep] = true
            names[#names + 1] = dep
        end
    end
end
for _, exists in ipairs(hmget(sub_key, ids)) do
    if exists then return 'CONFLICT' end
end
local is_done = {}
local lines = hmget(sub_key, names)
for i, dep in ipairs(names) do
    local s = parse(lines[i] or '')
    if not s[STATE] then
        return redis.error_reply('NODEP a child of ' .. parent .. ' depends on ' .. dep .. ', which task ' .. T .. ' does not have')
    end
    is_done[dep] = s[STATE] == 'DONE'
end
for _, node in ipairs(nodes) do
    for _, dep in ipairs(node.deps) do
        if is_done[dep] then
            node.s[INDEG] = node.s[INDEG] - 1
        end
    end
end

-- Nothing below may fail.
local us = clock()
p[EXP] = '2'
call('HSET', sub_key, parent, concat(p, ' '))
remaining = remaining + #nodes + expanding - 1
call('HSET', task_key, 'total', total + #nodes, 'remaining', remaining)
log('expanded', parent, p, '-', #nodes .. ' subtasks')
if #nodes > 0 then
    make_ready(store_nodes(nodes, is_done), us)
end
if remaining <= 0 then
    finish('DONE', floor(us / 1000), 'task-done', '')
end
return 'OK'

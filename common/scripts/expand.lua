#!lua
-- Adds the children of a planner's result, once. T, parent, nodes... OK, DUP, STALE, GONE, CONFLICT.
-- include lib
-- include lib_line
-- include lib_ready
-- include lib_hmget
-- include lib_over
-- include lib_nodes
local parent = ARGV[2]
local task = call('HMGET', task_key, 'state', 'total', 'remaining', 'sub:' .. parent, 'run:' .. parent)
if not task[1] or not task[4] then return 'GONE' end
local p = parse(task[4])
local total, remaining = tonumber(task[2]), tonumber(task[3])
if not p[STATE] or not total or not remaining then return damaged(parent) end
if p[EXP] == '2' then return 'DUP' end
if task[1] ~= 'RUNNING' or p[STATE] ~= 'DONE' or p[EXP] ~= '1' then return 'STALE' end

local nodes, expanding = read_nodes(3, #ARGV, total)
local ids, mine, outside = {}, {}, {}
for i, node in ipairs(nodes) do
    if mine[node.id] then return 'CONFLICT' end
    ids[i], mine[node.id] = node.id, true
end
for _, exists in ipairs(hmget(task_key, 'sub:', ids)) do
    if exists then return 'CONFLICT' end
end
local is_done = {}
for _, node in ipairs(nodes) do
    for _, dep in ipairs(node.deps) do
        if not mine[dep] and is_done[dep] == nil then
            is_done[dep] = false
            outside[#outside + 1] = dep
        end
    end
end
local lines = hmget(task_key, 'sub:', outside)
for i, dep in ipairs(outside) do
    local state = parse(lines[i] or '')[STATE]
    if not state then
        return redis.error_reply('NODEP a child of ' .. parent .. ' depends on ' .. dep .. ', which task ' .. T ..
            ' does not have')
    end
    is_done[dep] = state == 'DONE'
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
remaining = remaining + #nodes + expanding - 1
call('HSET', task_key, 'sub:' .. parent, concat(p, ' '), 'total', total + #nodes, 'remaining', remaining)
log(sub(us, 1, -4), 'expanded', parent, p[ATT], task[5] or '- - -', '-', #nodes .. ' subtasks')
if #nodes > 0 then
    make_ready(store_nodes(nodes, is_done, {data_key}), us)
end
if remaining <= 0 then
    finish('DONE', 'task-done', '')
end
told()
return 'OK'

#!lua
-- Stores one chunk of a task; the one that completes it makes the roots READY.
-- T, digest, title, info, number of chunks, this chunk (from 0), place of its first node, nodes...
-- OK activated, MORE chunks are missing, DUP, CONFLICT.
local digest, title, info, chunks, chunk = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local old = call('HMGET', task_key, 'state', 'digest', 'chunk:' .. chunk, 'chunks', 'remaining', 'total', 'roots')
if old[1] then
    if old[2] ~= digest then return 'CONFLICT' end
    if old[1] ~= 'LOADING' then return 'DUP' end
    if old[3] then return 'MORE' end
end
local us = clock()
local ms = floor(us / 1000)
local nodes, expanding = read_nodes(8, tonumber(ARGV[7]))
local loaded = (tonumber(old[4]) or 0) + 1
local total = (tonumber(old[6]) or 0) + #nodes
local remaining = (tonumber(old[5]) or 0) + #nodes + expanding

local roots = store_nodes(nodes, {})
if not old[1] then
    call('HSET', in_key, ':title', title, ':info', info)
    call('ZADD', tasks_key, ms, T)
end
if loaded == chunks and chunks == 1 then
    call('HSET', task_key, 'state', 'RUNNING', 'digest', digest, 'created', ms, 'total', total, 'remaining', remaining)
    make_ready(roots, us, true)
    return 'OK'
end

-- A task of many chunks: they may come in any order, and the roots wait for the last one.
local ids, lines = {old[7] or nil}, {sub_key}
for _, root in ipairs(roots) do
    ids[#ids + 1] = root.id
    lines[#lines + 1], lines[#lines + 2] = root.id, concat(root.s, ' ')
end
if #roots > 0 then
    call('HSET', unpack(lines))
end
if loaded < chunks then
    call('HSET', task_key, 'state', 'LOADING', 'digest', digest, 'total', total, 'remaining', remaining,
        'chunks', loaded, 'chunk:' .. chunk, 1, 'roots', concat(ids, ' '))
    if not old[1] then
        call('HSET', task_key, 'created', ms)
    end
    return 'MORE'
end
local gone = {'chunks', 'roots'}
for i = 0, chunks - 1 do
    gone[#gone + 1] = 'chunk:' .. i
end
call('HDEL', task_key, unpack(gone))
call('HSET', task_key, 'state', 'RUNNING', 'total', total, 'remaining', remaining)
local all, metas = {}, {}
for id in string.gmatch(concat(ids, ' '), '%S+') do
    all[#all + 1], metas[#metas + 1] = id, id .. ':m'
end
lines, metas = hmget(sub_key, all), hmget(in_key, metas)
local list = {}
for i, id in ipairs(all) do
    list[i] = {id = id, s = parse(lines[i]), meta = metas[i]}
end
make_ready(list, us, true)
return 'OK'

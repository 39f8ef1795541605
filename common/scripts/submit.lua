#!lua
-- Any number of tasks: stores one chunk of each; the one that completes a task makes its roots READY.
-- digest, title, info, number of chunks, this chunk (from 0), place of its first node, "nano tokens" (limits) or '',
-- nodes...
-- OK activated, MORE chunks are missing, DUP, CONFLICT.
-- include lib
-- include lib_line
-- include lib_ready
-- include lib_hmget
-- include lib_nodes
local us = clock()
local ms = sub(us, 1, -4)

local function submit()
    local digest, chunks, chunk = ARGV[at], ARGV[at + 3], ARGV[at + 4]
    local old = {}
    if call('EXISTS', task_key) == 1 then
        old = call('HMGET', task_key, 'state', 'digest', 'chunk:' .. chunk, 'chunks', 'remaining', 'total', 'roots')
        if old[2] ~= digest then return 'CONFLICT' end
        if old[1] ~= 'LOADING' then return 'DUP' end
        if old[3] then return 'MORE' end
    end

    -- One node, which is all the task has: what the rest of the script does, in less time, and in one key when it is
    -- small.
    local max, prio, exp = match(ARGV[at + 8], '^(%d+) (%-?%d+) ([01])$')
    if last - at == 11 and chunks == '1' and prio == '0' then
        local id, meta = ARGV[at + 7], ARGV[at + 11]
        local task = keep('HSET', task_key, {'state', 'RUNNING', 'digest', digest, 'created', ms, 'total', '1',
            'remaining', exp == '1' and '2' or '1', 'sub:' .. id,
            'READY 0 ' .. max .. ' 0 ' .. us .. ' 0 - ' .. max .. ' 0 ' .. exp .. ' 0' .. (meta ~= '' and ' ' .. meta or '')})
        if ARGV[at + 6] ~= '' then
            task[#task + 1], task[#task + 2] = 'budget', ARGV[at + 6] .. ' 0 0 0 0'
        end
        local data = task
        if #ARGV[at + 1] + #ARGV[at + 2] + #ARGV[at + 10] > 1000 then
            data = keep('HSET', data_key, {})
        end
        local n = #data
        data[n + 1], data[n + 2], data[n + 3], data[n + 4], data[n + 5], data[n + 6] =
            'title', ARGV[at + 1], 'info', ARGV[at + 2], 'work:' .. id, ARGV[at + 10]
        local tasks, ready, events = later('ZADD', tasks_key), later('ZADD', ready_key), later('XADD', ev_key)
        tasks[#tasks + 1], tasks[#tasks + 2] = ms, T
        ready[#ready + 1], ready[#ready + 2] = #ready == 0 and us or us + #ready, T .. '/' .. id
        events[#events + 1] = 'READY ' .. T .. ' ' .. id .. ' 0 0 ' .. exp .. ' - SUBMITTED '
        events[#events + 1] = meta
        return 'OK'
    end

    local nodes, expanding = read_nodes(at + 7, last, tonumber(ARGV[at + 5]))
    local loaded = (tonumber(old[4]) or 0) + 1
    local complete = loaded >= tonumber(chunks)

    -- The roots of earlier chunks, which have waited for this last one.
    local roots, ids = {}, {}
    for id in string.gmatch(complete and old[7] or '', '%S+') do
        ids[#ids + 1] = id
    end
    local lines = hmget(task_key, 'sub:', ids)
    for i, id in ipairs(ids) do
        roots[i] = {id = id, s = parse(lines[i] or '')}
        if not roots[i].s[STATE] then return damaged(id) end
    end

    -- Nothing below may fail.
    if not old[1] then
        call('ZADD', tasks_key, ms, T)
        call('HSET', task_key, 'created', ms, 'digest', digest)
        if ARGV[at + 6] ~= '' then
            call('HSET', task_key, 'budget', ARGV[at + 6] .. ' 0 0 0 0')
        end
    end
    local data = old[1] and {data_key} or {data_key, 'title', ARGV[at + 1], 'info', ARGV[at + 2]}
    local mine = store_nodes(nodes, {}, data)
    local total = (tonumber(old[6]) or 0) + #nodes
    local remaining = (tonumber(old[5]) or 0) + #nodes + expanding
    if complete then
        call('HSET', task_key, 'state', 'RUNNING', 'total', total, 'remaining', remaining)
        if chunks ~= '1' then
            call('HDEL', task_key, 'chunks', 'roots')
            for i = 0, chunks - 1 do
                call('HDEL', task_key, 'chunk:' .. i)
            end
        end
        for _, root in ipairs(mine) do
            roots[#roots + 1] = root
        end
        make_ready(roots, us, true)
        told()
        return 'OK'
    end
    lines, ids = {task_key}, {old[7] or nil}
    for _, root in ipairs(mine) do
        ids[#ids + 1] = root.id
        lines[#lines + 1], lines[#lines + 2] = 'sub:' .. root.id, concat(root.s, ' ')
    end
    if #mine > 0 then
        call('HSET', unpack(lines))
    end
    call('HSET', task_key, 'state', 'LOADING', 'total', total, 'remaining', remaining, 'chunks', loaded,
        'chunk:' .. chunk, 1, 'roots', concat(ids, ' '))
    return 'MORE'
end

local answers = {}
while ARGV[at] do
    -- next task
    answers[#answers + 1] = submit()
    at = last + 1
end
told()
return answers

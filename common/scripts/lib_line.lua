-- Lines of subtasks as arrays of words, and what is told to others. The record `meta` stands behind the last word.
local concat = table.concat
local STATE, ATT, LEFT, INDEG, RDY, QUEUE, CLASS, MAX, PRIO, EXP, ORD = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

local function parse(line)
    return {match(line, '^(%u+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%d+) (%-?%d+) ([012]) (%d+.*)$')}
end

-- Releases before this one kept the record in a field of its own: from there it comes behind the line.
local function meta_of(id, s)
    local meta = match(s[ORD], '^%d+ (.*)$')
    if not meta then
        meta = call('HGET', data_key, 'meta:' .. id) or ''
        if meta ~= '' then
            s[ORD] = s[ORD] .. ' ' .. meta
        end
    end
    return meta
end

local function damaged(id)
    return redis.error_reply('DAMAGED subtask ' .. id .. ' is not readable in ' .. task_key)
end

-- Microseconds since the epoch by Redis's clock, as a string of 16 digits: Lua would print such a
-- number in rounded form. Without the last three digits they are milliseconds.
local function clock()
    local t = call('TIME')
    return t[1] .. sub('00000' .. t[2], -6)
end

-- Values for a command on a key, which told() writes: each key is written once in a batch.
local pending, keys = {}, {}
local function keep(command, key, values)
    values.command, values.task = command, task_key
    pending[key], keys[#keys + 1] = values, key
    return values
end

-- The values so far, to be added to.
local function later(command, key)
    return pending[key] or keep(command, key, {})
end

-- A line of the log, for people. `state`: the state that the task has reached with this.
local function log(ms, what, id, att, run, class, text, state)
    local notes = later('RPUSH', log_key)
    notes[#notes + 1] = ms .. ' ' .. what .. ' ' .. id .. ' ' .. att .. ' ' .. run .. ' ' .. class .. ' ' ..
        (state or '-') .. ' ' .. text
end

-- Writes what was kept, and tells those who follow a log, which is bounded: the number of the first
-- of the new lines and these, or '' when they are to be read. Many events make one entry of an
-- outbox. Nothing in it may fail.
local function told()
    for _, key in ipairs(keys) do
        local values, n = pending[key], 0
        for from = 1, #values, 1000 do
            local to = math.min(from + 999, #values)
            if values.command == 'XADD' then
                call('XADD', key, '*', unpack(values, from, to))
            else
                n = call(values.command, key, unpack(values, from, to))
            end
        end
        if values.command == 'RPUSH' then
            local few = n <= 50000 and #values <= 20
            call('PUBLISH', key, few and n - #values .. '\0' .. concat(values, '\0') or '')
            if n > 50000 then
                call('LTRIM', key, -50000, -1)
                call('HINCRBY', values.task, 'dropped', n - 50000)
            end
        end
    end
    pending, keys = {}, {}
end

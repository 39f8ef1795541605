-- Lines of subtasks as arrays of words, and the log.
local concat = table.concat
local STATE, ATT, LEFT, INDEG, RDY, QUEUE, CLASS, MAX, PRIO, EXP, ORD = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

local function parse(line)
    return {match(line, '^(%u+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%d+) (%-?%d+) ([012]) (%d+)$')}
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

-- A line of the log, for people; the caller tells the followers with told(). The log is bounded.
local function log(ms, what, id, att, run, class, text)
    local n = call('RPUSH', log_key, ms .. ' ' .. what .. ' ' .. id .. ' ' .. att .. ' ' .. run .. ' ' .. class ..
        ' - ' .. text)
    if n > 50000 then
        call('LTRIM', log_key, -50000, -1)
        call('HINCRBY', task_key, 'dropped', n - 50000)
    end
end

local function told()
    call('PUBLISH', log_key, '')
end

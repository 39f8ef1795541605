-- Lines of subtasks as arrays of words, and what is told to others.
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

-- Kept until told(): events (text, record, ...) and lines of the log.
local events, notes = {}, {}

-- A line of the log, for people. `state`: the state that the task has reached with this.
local function log(ms, what, id, att, run, class, text, state)
    notes[#notes + 1] = ms .. ' ' .. what .. ' ' .. id .. ' ' .. att .. ' ' .. run .. ' ' .. class .. ' ' ..
        (state or '-') .. ' ' .. text
end

-- Any number of values at the end of a list or in a hash and the like; returns the last answer.
local function put(command, key, values)
    local answer
    for from = 1, #values, 1000 do
        answer = call(command, key, unpack(values, from, math.min(from + 999, #values)))
    end
    return answer
end

-- Writes the events, many to an entry of the outbox, and the log, which is bounded.
local function told()
    for from = 1, #events, 1000 do
        call('XADD', ev_key, '*', unpack(events, from, math.min(from + 999, #events)))
    end
    if #notes > 0 then
        local n = put('RPUSH', log_key, notes)
        if n > 50000 then
            call('LTRIM', log_key, -50000, -1)
            call('HINCRBY', task_key, 'dropped', n - 50000)
        end
        call('PUBLISH', log_key, '')
    end
    events, notes = {}, {}
end

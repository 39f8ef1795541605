-- Put before every script, behind the names of its keys (queue_script.c): task_key, sub_key, ...
-- ARGV[1] is always the task. A subtask is one line of words, the field of its id in sub_key; these
-- are their places. Fields with a colon (id:d dependencies, id:a arms to avoid, id:e reason of the
-- last failure) are no lines: an id has no colon.
local call, format, match = redis.call, string.format, string.match
local floor, concat = math.floor, table.concat
local STATE, ATT, LEFT, INDEG, RDY, QUEUE, TOK, OWNER, ARM, CLASS, MAX, PRIO, NDEPS, EXP, ORD =
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
local LINE = '^(%u+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%S+) (%S+) (%S+) (%d+) (%-?%d+) (%d+) ([012]) (%d+)$'
local T = ARGV[1]

local function parse(line)
    return {match(line, LINE)}
end

local function damaged(id)
    return redis.error_reply('DAMAGED subtask ' .. id .. ' of task ' .. T .. ' is not readable in ' .. sub_key)
end

-- Microseconds since the epoch, by Redis's clock; exact in a double.
local function clock()
    local t = call('TIME')
    return t[1] * 1000000 + t[2]
end

-- The outbox. `state`: the state that the task has reached with this, or '-'.
local function event(kind, id, s, state, blob, text)
    call('XADD', ev_key, '*', 'e', kind .. ' ' .. T .. ' ' .. id .. ' ' .. s[ATT] .. ' ' .. s[PRIO] .. ' ' ..
        s[EXP] .. ' ' .. s[CLASS] .. ' ' .. state, 'b', blob, 'x', text)
end

-- The log, for people.
local function log(what, id, s, state, text)
    call('XADD', log_key, 'MAXLEN', '~', 50000, '*', 'e', what .. ' ' .. id .. ' ' .. s[ATT] .. ' ' ..
        s[OWNER] .. ' ' .. s[ARM] .. ' ' .. s[CLASS] .. ' ' .. state, 'x', text)
end

-- An event or a log entry of the task itself.
local NOBODY = {[ATT] = '0', [PRIO] = '0', [EXP] = '0', [CLASS] = '-', [OWNER] = '-', [ARM] = '-'}

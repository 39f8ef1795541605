-- The outbox. `state`: the state that the task has reached with this, or '-'. Returns the time in ms.
local function event(kind, id, s, state, text, record)
    return match(call('XADD', ev_key, '*', kind .. ' ' .. T .. ' ' .. id .. ' ' .. s[ATT] .. ' ' .. s[PRIO] .. ' ' ..
        s[EXP] .. ' ' .. s[CLASS] .. ' ' .. state .. ' ' .. text, record), '^%d+')
end

-- Makes subtasks READY: list of {id, s = words, meta = record, avoid = arms}. The score is the time
-- in us, less a year for each step of priority: exact in a double. No log when just submitted.
local function make_ready(list, us, submitted)
    local lines, scores, n = {task_key}, {ready_key}, 1
    local ms = sub(us, 1, -4)
    for i = 1, #list do
        local r = list[i]
        local s, id = r.s, r.id
        s[STATE], s[RDY] = 'READY', us
        lines[n + 1], lines[n + 2] = 'sub:' .. id, concat(s, ' ')
        scores[n + 1], scores[n + 2] = us, T .. '/' .. id
        if i > 1 or s[PRIO] ~= '0' then
            scores[n + 1] = us + (i - 1) - s[PRIO] * 31536000000000
        end
        n = n + 2
        if n > 1000 or i == #list then
            call('HSET', unpack(lines, 1, n))
            call('ZADD', unpack(scores, 1, n))
            n = 1
        end
        event('READY', id, s, submitted and i == 1 and 'SUBMITTED' or '-', r.avoid or '', r.meta or '')
        if not submitted then
            log(ms, 'ready', id, s[ATT], '- - -', s[CLASS], '')
        end
    end
end

-- One subtask becomes READY again.
local function ready_again(id, s, us)
    local avoid = call('HGET', task_key, 'avoid:' .. id)
    make_ready({{id = id, s = s, meta = call('HGET', data_key, 'meta:' .. id), avoid = avoid}}, us)
end

-- For the outbox. `state`: the state that the task has reached with this, or '-'.
local function event(kind, id, s, state, text, record)
    local events = later('XADD', ev_key)
    local n = #events
    events[n + 1] = kind .. ' ' .. T .. ' ' .. id .. ' ' .. s[ATT] .. ' ' .. s[PRIO] .. ' ' .. s[EXP] .. ' ' ..
        s[CLASS] .. ' ' .. state .. ' ' .. text
    events[n + 2] = record
end

-- Makes subtasks READY, with told(): list of {id, s = words, avoid = arms}. The score is the time
-- in us, less a year for each step of priority: exact in a double. No log when just submitted.
local function make_ready(list, us, submitted)
    local lines, scores = later('HSET', task_key), later('ZADD', ready_key)
    local ms = sub(us, 1, -4)
    for i = 1, #list do
        local r = list[i]
        local s, id = r.s, r.id
        s[STATE], s[RDY] = 'READY', us
        local meta = meta_of(id, s)
        local n, m = #lines, #scores
        lines[n + 1], lines[n + 2] = 'sub:' .. id, concat(s, ' ')
        scores[m + 1], scores[m + 2] = us, T .. '/' .. id
        if i > 1 or s[PRIO] ~= '0' then
            scores[m + 1] = us + (i - 1) - s[PRIO] * 31536000000000
        end
        event('READY', id, s, submitted and i == 1 and 'SUBMITTED' or '-', r.avoid or '', meta)
        if not submitted then
            log(ms, 'ready', id, s[ATT], '- - -', s[CLASS], '')
        end
    end
end

-- ms since the subtask was READY, from where the times in `avoid` count.
local function since_ready(s, us)
    return math.max(0, math.floor((us - s[RDY]) / 1000))
end

-- One subtask becomes READY again. What it avoids for a time it avoids for what is left of it.
local function ready_again(id, s, us)
    local avoid = call('HGET', task_key, 'avoid:' .. id)
    if avoid and string.find(avoid, '=', 1, true) then
        local words, passed = {}, since_ready(s, us)
        for word in string.gmatch(avoid, '%S+') do
            local arm, ms = match(word, '^(.*)=(%d+)$')
            if not arm then
                words[#words + 1] = word
            elseif ms - passed > 0 then
                words[#words + 1] = arm .. '=' .. string.format('%.0f', ms - passed)
            end
        end
        avoid = concat(words, ' ')
        call('HSET', task_key, 'avoid:' .. id, avoid)
    end
    make_ready({{id = id, s = s, avoid = avoid}}, us)
end

-- Makes subtasks READY: list of {id, s = words, meta = record, avoid = arms}. The order is by
-- priority, then by time in units of 64 us and the place in the list; both are exact in a double:
-- 127 * 2^45 + 71 years of units < 2^53.
local function make_ready(list, us, submitted)
    local rdy = format('%.0f', us)
    local first = floor((us - 1735689600000000) / 64)
    local lines, scores, n = {sub_key}, {ready_key}, 1
    for i, r in ipairs(list) do
        local s = r.s
        s[STATE], s[RDY] = 'READY', rdy
        lines[n + 1], lines[n + 2] = r.id, concat(s, ' ')
        scores[n + 1], scores[n + 2] = first + i - s[PRIO] * 35184372088832, T .. '/' .. r.id
        n = n + 2
        if n > 1000 or i == #list then
            call('HSET', unpack(lines, 1, n))
            call('ZADD', unpack(scores, 1, n))
            n = 1
        end
        event('READY', r.id, s, submitted and i == 1 and 'SUBMITTED' or '-', r.meta or '', r.avoid or '')
        if not submitted then
            log('ready', r.id, s, '-', '')
        end
    end
end

-- One subtask becomes READY from another state than BLOCKED.
local function ready_again(id, s)
    local avoid = call('HGET', sub_key, id .. ':a')
    make_ready({{id = id, s = s, meta = call('HGET', in_key, id .. ':m'), avoid = avoid}}, clock())
end

-- Calls HMGET for any number of fields.
local function hmget(key, fields)
    local values, n = {}, #fields
    for from = 1, n, 1000 do
        local part = call('HMGET', key, unpack(fields, from, math.min(from + 999, n)))
        for i = 1, #part do
            values[from + i - 1] = part[i]
        end
    end
    return values
end

-- Ends a task: everything that is not terminal, except what runs unless `running_too`, becomes
-- CANCELLED. Returns how many, and the words of those that ran by id.
local INDEX_OF = {READY = ready_key, DELAYED = delay_key, HELD = held_key, RUNNING = lease_key}
local function cancel_rest(running_too)
    local all, lines, cancelled, ran = call('HGETALL', sub_key), {sub_key}, 0, {}
    local leaving = {}
    for i = 1, #all, 2 do
        local id, s = all[i], parse(all[i + 1])
        local state = s[STATE]
        if state and (INDEX_OF[state] or state == 'BLOCKED') and (running_too or state ~= 'RUNNING') then
            s[STATE] = 'CANCELLED'
            lines[#lines + 1], lines[#lines + 2] = id, concat(s, ' ')
            cancelled = cancelled + 1
            local index = INDEX_OF[state]
            if index then
                leaving[index] = leaving[index] or {index}
                table.insert(leaving[index], T .. '/' .. id)
            end
            if state == 'RUNNING' then
                ran[id] = s
            end
        end
        if #lines > 1000 or (i == #all - 1 and #lines > 1) then
            call('HSET', unpack(lines))
            for _, members in pairs(leaving) do
                call('ZREM', unpack(members))
            end
            lines, leaving = {sub_key}, {}
        end
    end
    return cancelled, ran
end

-- The task reaches its last state, with its event and log entry.
local function finish(state, ms, what, text)
    call('HSET', task_key, 'state', state, 'finished', ms)
    call('ZADD', fin_key, ms, T)
    event('TASK', '-', NOBODY, state, '', text)
    log(what, '-', NOBODY, '-', text)
end

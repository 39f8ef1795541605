-- Of an event that no subtask has.
local NOBODY = {[ATT] = '0', [PRIO] = '0', [EXP] = '0', [CLASS] = '-'}

-- The task reaches its last state.
local function finish(state, what, text)
    local ms = sub(clock(), 1, -4)
    event('TASK', '-', NOBODY, state, text, '')
    call('HSET', task_key, 'state', state, 'finished', ms)
    call('ZADD', fin_key, ms, T)
    log(ms, what, '-', 0, '- - -', '-', text)
end

-- Everything that is not terminal, except what runs unless `running_too`, becomes CANCELLED.
-- Returns how many, and which of them ran, by id. Those for which something is reserved stay in `lease`:
-- until it is known what they have cost (lose.lua), or the lease runs out (fail.lua).
local function cancel_rest(running_too)
    local index_of = {BLOCKED = '', READY = ready_key, DELAYED = delay_key, HELD = held_key, RUNNING = lease_key}
    local all, lines, leaving = call('HGETALL', task_key), {task_key}, {}
    local cancelled, ran = 0, {}
    for i = 1, #all, 2 do
        if sub(all[i], 1, 4) == 'sub:' then
            local id, s = sub(all[i], 5), parse(all[i + 1])
            local index = s[STATE] and index_of[s[STATE]]
            if index and (running_too or s[STATE] ~= 'RUNNING') then
                if s[STATE] == 'RUNNING' then
                    ran[id] = true
                    index = call('HEXISTS', task_key, 'hold:' .. id) == 1 and '' or index
                end
                s[STATE] = 'CANCELLED'
                lines[#lines + 1], lines[#lines + 2] = all[i], concat(s, ' ')
                cancelled = cancelled + 1
                if index ~= '' then
                    leaving[index] = leaving[index] or {index}
                    table.insert(leaving[index], T .. '/' .. id)
                end
            end
        end
        if #lines > 1000 or (i == #all - 1 and #lines > 1) then
            call('HSET', unpack(lines))
            for _, members in pairs(leaving) do
                call('ZREM', unpack(members))
            end
            lines, leaving = {task_key}, {}
        end
    end
    return cancelled, ran
end

-- A subtask is dead, and with it its task, if that is not over. run: words of its last attempt.
local function die(id, s, ms, run, reason, open)
    s[STATE] = 'DEAD'
    call('HSET', task_key, 'sub:' .. id, concat(s, ' '))
    log(ms, 'dead', id, s[ATT], run, s[CLASS], reason)
    call('ZADD', dead_key, ms, T .. '/' .. id)
    event('DEAD', id, s, '-', reason, '')
    if open then
        local cancelled = cancel_rest(false)
        finish('FAILED', 'task-failed', id .. ' is dead (' .. s[CLASS] .. '); ' .. cancelled .. ' cancelled')
    end
end

#!lua
-- A failed attempt; with the token '' one whose lease ran out.
-- T, id, token, class, action, reason, arm, backoff in ms, timing.
-- RETRY, DEAD, STALE, GONE; CANCELLED also when the task is over, so that there is no further attempt.
local id, token, class, action, reason = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local arm, backoff, timing = ARGV[7], tonumber(ARGV[8]), ARGV[9]
local line = call('HGET', sub_key, id)
if not line then return 'GONE' end
local s = parse(line)
local state = s[STATE]
if not state then return damaged(id) end
local us = clock()
local ms = floor(us / 1000)
local member = T .. '/' .. id
if token == '' then
    if state ~= 'RUNNING' then return 'STALE' end
    local expiry = call('ZSCORE', lease_key, member)
    if expiry and tonumber(expiry) > ms then return 'STALE' end
else
    if state == 'CANCELLED' then return 'CANCELLED' end
    if s[TOK] ~= token or state == 'DONE' then return 'STALE' end
    if state == 'DEAD' then return 'DEAD' end
    if state ~= 'RUNNING' then return 'RETRY' end -- this call was applied before
end
local task_state = call('HGET', task_key, 'state')
if not task_state then return damaged(id) end
local open = task_state == 'RUNNING' or task_state == 'LOADING'
local dead = action == 'DEAD' or tonumber(s[LEFT]) <= 0

-- Nothing below may fail.
call('ZREM', lease_key, member)
s[CLASS] = class
call('HSET', sub_key, id .. ':e', reason)
if dead then
    s[STATE] = 'DEAD'
    call('HSET', sub_key, id, concat(s, ' '))
    call('ZADD', dead_key, ms, member)
    if timing ~= '' then
        call('HSET', res_key, id .. ':t', timing)
    end
    event('FAIL', id, s, '-', timing, reason)
    event('DEAD', id, s, '-', '', reason)
    log('dead', id, s, '-', reason)
    if open then
        local cancelled = cancel_rest(false)
        finish('FAILED', ms, 'task-failed', id .. ' is dead (' .. class .. '); ' .. cancelled .. ' cancelled')
    end
    return 'DEAD'
end
if not open then
    s[STATE] = 'CANCELLED'
    call('HSET', sub_key, id, concat(s, ' '))
    event('FAIL', id, s, '-', timing, reason)
    log('cancelled', id, s, '-', reason)
    return 'CANCELLED'
end
event('FAIL', id, s, '-', timing, reason)
log('retry', id, s, '-', reason)
if action == 'MOVE' then
    local avoid = call('HGET', sub_key, id .. ':a') or ''
    if not string.find(' ' .. avoid .. ' ', ' ' .. arm .. ' ', 1, true) then
        call('HSET', sub_key, id .. ':a', avoid == '' and arm or avoid .. ' ' .. arm)
    end
elseif backoff > 0 then
    s[STATE] = 'DELAYED'
    call('HSET', sub_key, id, concat(s, ' '))
    call('ZADD', delay_key, ms + backoff, member)
    return 'RETRY'
end
ready_again(id, s) -- by way of DELAYED, for no time
return 'RETRY'

#!lua
-- A failed attempt; with the token '' one whose lease ran out.
-- T, id, token, class, action, reason, arm, backoff in ms, timing.
-- RETRY, DEAD, STALE, GONE; CANCELLED also when the task is over, so that there is no further attempt.
-- include lib
-- include lib_line
-- include lib_ready
-- include lib_over
-- include lib_dead
local id, token, class, action, reason = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local arm, backoff, timing = ARGV[7], tonumber(ARGV[8]), ARGV[9]
local old = call('HMGET', task_key, 'sub:' .. id, 'run:' .. id, 'state', 'avoid:' .. id)
if not old[1] then return 'GONE' end
local s = parse(old[1])
local state, run = s[STATE], old[2] or '- - -'
if not state then return damaged(id) end
local us = clock()
local ms = sub(us, 1, -4)
local member = T .. '/' .. id
if token == '' then
    if state ~= 'RUNNING' then return 'STALE' end
    local expiry = call('ZSCORE', lease_key, member)
    if expiry and tonumber(expiry) > tonumber(ms) then return 'STALE' end
else
    if state == 'CANCELLED' then return 'CANCELLED' end
    if match(run, '^%S+') ~= token or state == 'DONE' then return 'STALE' end
    if state == 'DEAD' then return 'DEAD' end
    if state ~= 'RUNNING' then return 'RETRY' end -- this call was applied before
end
local open = old[3] == 'RUNNING' or old[3] == 'LOADING'
-- WAIT does not count, but must end: see QUEUE_WAITS_MAX. Attempts are numbered on when a person has
-- a dead subtask tried again: hence every hundredth, not all behind the hundredth.
local waits = action == 'WAIT' and s[ATT] % 100 ~= 0
local dead = action == 'DEAD' or (action == 'WAIT' and not waits) or (s[LEFT] == '0' and not waits)

-- Nothing below may fail.
call('ZREM', lease_key, member)
s[CLASS] = class
call('HSET', task_key, 'error:' .. id, reason)
event('FAIL', id, s, '-', reason, timing)
if dead or not open then
    if dead then
        call('HSET', data_key, 'timing:' .. id, timing)
        die(id, s, ms, run, reason, open)
    else
        s[STATE] = 'CANCELLED'
        call('HSET', task_key, 'sub:' .. id, concat(s, ' '))
        log(ms, 'cancelled', id, s[ATT], run, class, reason)
    end
    told()
    return s[STATE]
end
log(ms, 'retry', id, s[ATT], run, class, reason)
if waits then
    s[LEFT] = s[LEFT] + 1
end
if action == 'MOVE' then
    call('HSET', data_key, 'timing:' .. id, timing) -- bury.lua has none
    local avoid = old[4] or ''
    if not string.find(' ' .. avoid .. ' ', ' ' .. arm .. ' ', 1, true) then
        call('HSET', task_key, 'avoid:' .. id, avoid == '' and arm or avoid .. ' ' .. arm)
    end
end
if action ~= 'MOVE' and backoff > 0 then
    s[STATE] = 'DELAYED'
    call('HSET', task_key, 'sub:' .. id, concat(s, ' '))
    call('ZADD', delay_key, ms + backoff, member)
else
    ready_again(id, s, us) -- by way of DELAYED, for no time
end
told()
return 'RETRY'

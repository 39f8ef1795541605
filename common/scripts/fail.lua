#!lua
-- A failed attempt; with the token '' those whose lease ran out: two when there is a hedge.
-- T, id, token, class, action, reason, arm, backoff in ms, timing, "nano tokens" (what it has cost) or ''. KEYS: also those
-- of the accounts. RETRY, DEAD, STALE, GONE; CANCELLED also when the task is over, so that there is no further attempt;
-- {ACCOUNTS, names...}: whose keys are missing.
-- define QUEUE_WAITS_MAX
-- define QUEUE_LOSSES_MAX
-- include lib
-- include lib_line
-- include lib_ready
-- include lib_over
-- include lib_dead
-- include lib_run
local id, token, class, action, reason = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local arm, backoff, timing = ARGV[7], tonumber(ARGV[8]), ARGV[9]
local old = call('HMGET', task_key, 'sub:' .. id, 'run:' .. id, 'state', 'avoid:' .. id, 'hold:' .. id, 'lost:' .. id)
if not old[1] then return 'GONE' end
local s = parse(old[1])
local state = s[STATE]
if not state then return damaged(id) end
local attempts = read_run(old[2] or '')
local place = find_attempt(attempts, token)
attempts[1] = attempts[1] or {number = s[ATT], words = '- - -'} -- damaged
local us = clock()
local ms = sub(us, 1, -4)
local member = T .. '/' .. id
if token == '' then
    -- What ended otherwise may still hold something, until it is known what it has cost (lose.lua) or here.
    if state ~= 'RUNNING' and not old[5] then return 'STALE' end
    local expiry = call('ZSCORE', lease_key, member)
    if expiry and tonumber(expiry) > tonumber(ms) then return 'STALE' end
else
    if state == 'CANCELLED' then return 'CANCELLED' end
    if not place then
        local ended = call('HGET', task_key, 'ended:' .. id) or ''
        return string.find(' ' .. ended .. ' ', ' ' .. token .. ' ', 1, true) and 'RETRY' or 'STALE'
    end
    if state == 'DONE' then return 'STALE' end
    if state == 'DEAD' then return 'DEAD' end
    if state ~= 'RUNNING' then return 'RETRY' end -- this call was applied before
end
local open = old[3] == 'RUNNING' or old[3] == 'LOADING'
local beside = token ~= '' and #attempts == 2 -- then the other attempt runs on

-- Settles what is held, but for the other attempt. Nothing behind it may fail.
local held = false
if old[5] then
    -- include lib_budget
    local holds = read_holds(id, old[5])
    local lists, missing = settling(holds, beside and token or nil)
    if not lists then return missing end
    held = #settle(id, holds, lists, token, read_cost(ARGV[10])) > 0
    write_budgets()
end
if state ~= 'RUNNING' then
    call('ZREM', lease_key, member)
    call('HSET', task_key, 'run:' .. id, write_run(attempts, false))
    told()
    return 'STALE'
end

-- The arms to avoid, with this one: for good, or for so many ms from now.
local function avoid_it(wait_ms)
    local words, known = {}, false
    for word in string.gmatch(old[4] or '', '%S+') do
        known = known or word == arm
        if match(word, '^(.*)=%d+$') ~= arm then
            words[#words + 1] = word
        end
    end
    if not known and arm ~= '-' then
        words[#words + 1] = wait_ms and arm .. '=' .. string.format('%.0f', wait_ms + since_ready(s, us)) or arm
    end
    if #words > 0 then
        call('HSET', task_key, 'avoid:' .. id, concat(words, ' '))
    end
end

-- An attempt ends: what is told of it bears its own number.
local function tell(attempt, what)
    local last = s[ATT]
    s[ATT] = attempt.number
    event('FAIL', id, s, '-', reason, timing)
    if what then
        log(ms, what, id, s[ATT], attempt.words, class, reason)
    end
    s[ATT] = last
end

if ARGV[10] ~= '' then
    call('HINCRBY', task_key, 'cost', match(ARGV[10], '^(%d+) %d+$') or 0)
end
s[CLASS] = class
call('HSET', task_key, 'error:' .. id, reason)
if beside then
    local ended = call('HGET', task_key, 'ended:' .. id)
    tell(table.remove(attempts, place), 'lost')
    call('HSET', task_key, 'sub:' .. id, concat(s, ' '), 'run:' .. id, write_run(attempts, held),
        'ended:' .. id, ended and ended .. ' ' .. token or token)
    if action == 'MOVE' or (action == 'WAIT' and backoff > 0) then
        avoid_it(action == 'WAIT' and ARGV[8])
    end
    told()
    return 'RETRY'
end

-- WAIT does not count, but must end: see QUEUE_WAITS_MAX. Attempts are numbered on when a person has
-- a dead subtask tried again: hence every hundredth, not all behind the hundredth. Waiting for a budget
-- ends by itself, when the calls under way are settled.
local waits = action == 'WAIT' and (class == 'budget' or s[ATT] % QUEUE_WAITS_MAX ~= 0)
local delay = action == 'RETRY' and backoff or 0
-- Losses of workers that nobody puts down to this subtask are counted apart: see QUEUE_LOSSES_MAX. What was lost together
-- shall not run together again, if it is one of them that kills workers.
if action == 'WAIT' and class == 'worker_lost' then
    local losses = (tonumber(old[6] or 0) or 0) + 1
    call('HSET', task_key, 'lost:' .. id, losses)
    waits = losses % QUEUE_LOSSES_MAX ~= 0
    if losses > 2 then
        delay = math.floor(math.min(60000, 250 * 2 ^ losses) * (1 + sub(us, -3) / 1000) / 2)
    end
end
local dead = action == 'DEAD' or (action == 'WAIT' and not waits) or (s[LEFT] == '0' and not waits)
call('ZREM', lease_key, member)
for i = 2, #attempts do
    tell(attempts[i], 'lost')
end
tell(attempts[1])
local run = attempts[1].words
if run ~= old[2] then
    call('HSET', task_key, 'run:' .. id, run)
end
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
log(ms, 'retry', id, attempts[1].number, run, class, reason)
if waits then
    s[LEFT] = s[LEFT] + 1
    if backoff > 0 then
        avoid_it(ARGV[8])
    end
elseif action == 'MOVE' then
    call('HSET', data_key, 'timing:' .. id, timing) -- bury.lua has none
    avoid_it()
end
if delay > 0 then
    s[STATE] = 'DELAYED'
    call('HSET', task_key, 'sub:' .. id, concat(s, ' '))
    call('ZADD', delay_key, ms + delay, member)
else
    ready_again(id, s, us) -- by way of DELAYED, for no time
end
told()
return 'RETRY'

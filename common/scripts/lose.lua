#!lua
-- An attempt was stopped because the subtask needs it no longer: no state changes, but its timing is told and what is
-- held for it settled. T, id, token, timing, "nano tokens" or ''. KEYS: also those of the accounts.
-- OK, DUP, GONE, STALE: it still owns the subtask; {ACCOUNTS, names...}: whose keys are missing.
-- include lib
-- include lib_line
-- include lib_ready
-- include lib_run
-- include lib_budget
local id, token, timing, cost = ARGV[2], ARGV[3], ARGV[4], read_cost(ARGV[5])
local old = call('HMGET', task_key, 'sub:' .. id, 'run:' .. id, 'hold:' .. id, 'ended:' .. id)
if not old[1] then return 'GONE' end
local s = parse(old[1])
if not s[STATE] then return damaged(id) end
local number = match(token, '^(%d+)%-')
if not number or tonumber(number) > tonumber(s[ATT]) then return 'GONE' end
local attempts, ended = read_run(old[2] or ''), old[4] or ''
local place = find_attempt(attempts, token)
if s[STATE] == 'RUNNING' and place then return 'STALE' end
if s[STATE] == 'DONE' and place then return 'DUP' end
if string.find(' ' .. ended .. ' ', ' ' .. token .. ' ', 1, true) then return 'DUP' end
local holds = read_holds(id, old[3])
local lists, missing = settling(holds, token)
if not lists then return missing end

-- Nothing below may fail.
local left = settle(id, holds, lists, token, cost)
if cost then
    call('HINCRBY', task_key, 'cost', match(ARGV[5], '^%d+'))
end
call('HSET', task_key, 'ended:' .. id, ended == '' and token or ended .. ' ' .. token)
if #left == 0 and #holds > 0 then
    call('HSET', task_key, 'run:' .. id, write_run(attempts, false))
    if s[STATE] ~= 'RUNNING' then
        call('ZREM', lease_key, T .. '/' .. id)
    end
end
write_budgets()
s[ATT], s[CLASS] = number, 'none'
event('LOST', id, s, '-', '', timing)
log(sub(clock(), 1, -4), 'lost', id, number, place and attempts[place].words or token .. ' - -', '-', '')
told()
return 'OK'

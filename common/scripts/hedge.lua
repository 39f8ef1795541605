#!lua
-- A second attempt beside the one that runs. T, id, worker, arm, nonce, lease in ms. As claim.lua; TAKEN also when there
-- are two, when the task is over, and beside a hundredth attempt, which may be the last (fail.lua).
-- define QUEUE_WAITS_MAX
-- include lib
-- include lib_line
-- include lib_hmget
-- include lib_run
local id, nonce, lease = ARGV[2], ARGV[5], ARGV[6]
local old = call('HMGET', task_key, 'sub:' .. id, 'run:' .. id, 'deps:' .. id, 'state', 'budget', 'work:' .. id)
if not old[1] then return {'GONE'} end
local s = parse(old[1])
if not s[STATE] then return damaged(id) end
if s[STATE] == 'CANCELLED' then return {'CANCEL'} end
if s[STATE] ~= 'RUNNING' then return {'TAKEN'} end
local attempts, held = read_run(old[2] or '')
local mine
for _, attempt in ipairs(attempts) do
    if match(attempt.token, '^%d+%-(.*)$') == nonce then
        mine = attempt
    end
end
local open = old[4] == 'RUNNING' or old[4] == 'LOADING'
if not mine and (not open or #attempts ~= 1 or s[ATT] % QUEUE_WAITS_MAX == 0) then return {'TAKEN'} end
local wanted = {not old[6] and 'work:' .. id or nil}
for dep in string.gmatch(old[3] or '', '%S+') do
    wanted[#wanted + 1] = 'outcome:' .. dep
end
local data = hmget(data_key, '', wanted)

-- Nothing below may fail.
local ms = sub(clock(), 1, -4)
if not mine then
    s[ATT] = tostring(s[ATT] + 1)
    local token = s[ATT] .. '-' .. nonce
    mine = {token = token, number = s[ATT], words = token .. ' ' .. ARGV[3] .. ' ' .. ARGV[4]}
    attempts[2] = mine
    call('HSET', task_key, 'sub:' .. id, concat(s, ' '), 'run:' .. id, write_run(attempts, held))
    log(ms, 'hedged', id, mine.number, mine.words, '-', '')
end
call('ZADD', lease_key, 'GT', string.format('%.0f', ms + lease), T .. '/' .. id)
told()
local answer = {'OK', mine.token, tonumber(mine.number), 0, old[5] and 1 or 0, old[6] or nil}
for i = 1, #wanted do
    answer[#answer + 1] = data[i] or ''
end
return answer

#!lua
-- T, id, worker, arm, nonce, lease in ms. {OK, token, attempt, us in the queue, work, outcomes of
-- the dependencies...}; {TAKEN}, {GONE}, {CANCEL}.
-- include lib
local id, nonce = ARGV[2], ARGV[5]
local old = call('HMGET', task_key, 'sub:' .. id, 'deps:' .. id, 'run:' .. id)
if not old[1] then return {'GONE'} end
local state, att, left, indeg, rdy, queue, rest =
    match(old[1], '^(%u+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+ %d+ %-?%d+ [012] %d+)$')
if not state then
    return redis.error_reply('DAMAGED subtask ' .. id .. ' is not readable in ' .. task_key)
end
if state == 'CANCELLED' then return {'CANCEL'} end
local token = att .. '-' .. nonce
local again = state == 'RUNNING' and old[3] and match(old[3], '^%S+') == token
if state ~= 'READY' and not again then return {'TAKEN'} end

local t = call('TIME')
local us = t[1] .. sub('00000' .. t[2], -6)
local ms = sub(us, 1, -4)
local member = T .. '/' .. id
call('ZADD', lease_key, tostring(ms + ARGV[6]), member)
if not again then
    att, left, queue = att + 1, left - 1, us - rdy
    token = att .. '-' .. nonce
    local run = token .. ' ' .. ARGV[3] .. ' ' .. ARGV[4]
    if left < 0 then left = 0 end
    if queue < 0 then queue = 0 end
    call('HSET', task_key, 'sub:' .. id, 'RUNNING ' .. att .. ' ' .. left .. ' ' .. indeg .. ' ' .. rdy .. ' ' ..
        queue .. ' ' .. rest, 'run:' .. id, run)
    call('ZREM', ready_key, member)
    call('RPUSH', log_key, ms .. ' running ' .. id .. ' ' .. att .. ' ' .. run .. ' - - ')
    call('PUBLISH', log_key, '')
end
local work = call('HGET', data_key, 'work:' .. id) or ''
if not old[2] then
    return {'OK', token, tonumber(att), tonumber(queue), work}
end
local answer = {'OK', token, tonumber(att), tonumber(queue), work}
local deps, n = {}, 0
for dep in string.gmatch(old[2], '%S+') do
    n = n + 1
    deps[n] = 'outcome:' .. dep
end
for from = 1, n, 1000 do
    local part = call('HMGET', data_key, unpack(deps, from, math.min(from + 999, n)))
    for i = 1, #part do
        answer[#answer + 1] = part[i] or ''
    end
end
return answer

#!lua
-- T, id, worker, arm, nonce, lease in ms. {OK, token, attempt, us in the queue, work, outcomes of
-- the dependencies...}; {TAKEN}, {GONE}, {CANCEL}.
local id, worker, arm, nonce = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local line = call('HGET', sub_key, id)
if not line then return {'GONE'} end
local s = parse(line)
local state = s[STATE]
if not state then return damaged(id) end
if state == 'CANCELLED' then return {'CANCEL'} end
local again = state == 'RUNNING' and s[TOK] == s[ATT] .. '-' .. nonce
if state ~= 'READY' and not again then return {'TAKEN'} end

local us = clock()
local member = T .. '/' .. id
local deps = {}
if s[NDEPS] ~= '0' then
    for dep in string.gmatch(call('HGET', sub_key, id .. ':d') or '', '%S+') do
        deps[#deps + 1] = dep
    end
end
if not again then
    s[STATE], s[ATT], s[LEFT] = 'RUNNING', s[ATT] + 1, math.max(s[LEFT] - 1, 0)
    local waited = us - s[RDY]
    s[QUEUE] = format('%.0f', waited > 0 and waited or 0)
    s[TOK], s[OWNER], s[ARM] = s[ATT] .. '-' .. nonce, worker, arm
    call('HSET', sub_key, id, concat(s, ' '))
    call('ZREM', ready_key, member)
    log('running', id, s, '-', '')
end
call('ZADD', lease_key, floor(us / 1000) + ARGV[6], member)
local answer = {'OK', s[TOK], tonumber(s[ATT]), tonumber(s[QUEUE]), call('HGET', in_key, id) or ''}
for from = 1, #deps, 1000 do
    local part = call('HMGET', res_key, unpack(deps, from, math.min(from + 999, #deps)))
    for i = 1, #part do
        answer[#answer + 1] = part[i] or ''
    end
end
return answer

#!lua
-- The stored answer to a request, or whose call to wait for. KEYS: answers, used, expiry, bytes, flight
-- of the key. ARGV: key, owner, ms of a flight, most bytes of an answer, 1 when what is stored is
-- damaged. {HIT, answer}; {MISS}: the owner makes the call; {WAIT, ms}: someone else does, and is gone
-- when nothing is heard for so long.
local call = redis.call
local key, owner = ARGV[1], ARGV[2]
local time = call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = call('ZSCORE', KEYS[3], key)
local size = call('HSTRLEN', KEYS[1], key)
local flying = call('GET', KEYS[5])

local good = expiry and size > 0 and tonumber(expiry) > ms and size <= tonumber(ARGV[4]) and
    ARGV[5] ~= '1'
if good then
    local answer = call('HGET', KEYS[1], key)
    call('ZADD', KEYS[2], ms, key)
    return {'HIT', answer}
end
if size > 0 or expiry then
    if call('HDEL', KEYS[1], key) == 1 then call('DECRBY', KEYS[4], size + 256) end
    call('ZREM', KEYS[2], key)
    call('ZREM', KEYS[3], key)
end
if flying and flying ~= owner then return {'WAIT', call('PTTL', KEYS[5])} end
call('SET', KEYS[5], owner, 'PX', ARGV[3])
return {'MISS'}

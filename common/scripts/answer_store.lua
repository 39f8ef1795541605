#!lua
-- Keeps an answer. KEYS: answers, used, expiry, bytes, flight of the key. ARGV: key, owner, answer, ms to
-- live, most bytes of all, channel. Each answer counts its length and 256 bytes, about what Redis needs
-- besides. What is over goes first, then what was not used for longest, at most 200 in one call; where
-- that is not enough, the answer is not kept.
local call = redis.call
local key, owner, answer = ARGV[1], ARGV[2], ARGV[3]
local EXTRA, MOST = 256, 200
local time = call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
local bytes = tonumber(call('GET', KEYS[4])) or 0
local limit, need = tonumber(ARGV[5]), #answer + EXTRA
local gone, is_gone = {}, {}

local function remove(name)
    if is_gone[name] then return end
    is_gone[name] = true
    gone[#gone + 1] = name
    local size = call('HSTRLEN', KEYS[1], name)
    if size > 0 then bytes = bytes - size - EXTRA end
end

remove(key)
for _, name in ipairs(call('ZRANGEBYSCORE', KEYS[3], '-inf', ms, 'LIMIT', 0, MOST)) do
    remove(name)
end
if bytes + need > limit then
    for _, name in ipairs(call('ZRANGE', KEYS[2], 0, MOST - 1)) do
        if bytes + need <= limit then break end
        remove(name)
    end
end
local flying = call('GET', KEYS[5])

call('HDEL', KEYS[1], unpack(gone))
call('ZREM', KEYS[2], unpack(gone))
call('ZREM', KEYS[3], unpack(gone))
if bytes + need <= limit then
    bytes = bytes + need
    call('HSET', KEYS[1], key, answer)
    call('ZADD', KEYS[2], ms, key)
    call('ZADD', KEYS[3], ms + ARGV[4], key)
end
call('SET', KEYS[4], string.format('%.0f', math.max(0, bytes)))
for i = 1, 4 do call('PEXPIRE', KEYS[i], ARGV[4] + 86400000) end
if flying == owner then call('DEL', KEYS[5]) end
call('PUBLISH', ARGV[6], key)
return 'OK'

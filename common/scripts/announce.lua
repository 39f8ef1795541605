#!lua
-- An orchestrator lives. KEYS: names by expiry, descriptions by name. name, JSON, ms.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('HDEL', KEYS[2], name)
    redis.call('ZREM', KEYS[1], name)
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 'OK'

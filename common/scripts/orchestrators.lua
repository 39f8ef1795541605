#!lua flags=no-writes
-- Descriptions of the orchestrators that live. KEYS: names by expiry, descriptions by name.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local names = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'LIMIT', 0, 1000)
if #names == 0 then return {} end
return redis.call('HMGET', KEYS[2], unpack(names))

#!lua flags=allow-oom
-- Says whose archive has a finished task, before Redis forgets it. KEYS: archives by task, tasks by time (ms). task,
-- archive, ms, most tasks: older ones, and those beyond, are forgotten. OK.
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
call('HSET', KEYS[1], ARGV[1], ARGV[2])
call('ZADD', KEYS[2], now, ARGV[1])
local old = call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[3], 'LIMIT', 0, 100)
local more = math.min(call('ZCARD', KEYS[2]) - #old - ARGV[4], 100)
if more > 0 then
    old = call('ZRANGE', KEYS[2], 0, #old + more - 1)
end
if #old > 0 then
    call('HDEL', KEYS[1], unpack(old))
    call('ZREM', KEYS[2], unpack(old))
end
return 'OK'

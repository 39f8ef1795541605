#!lua flags=no-writes
-- Members of an index of times, by Redis's clock: those at least `ago` ms in the past.
-- KEYS[1]: the index. ago, offset, limit.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'WITHSCORES', 'LIMIT', ARGV[2], ARGV[3])

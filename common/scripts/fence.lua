#!lua flags=allow-oom
-- A new holder of a shard keeps former ones from moving its checkpoint. KEYS: checkpoint, fence. term. {OK, checkpoint},
-- STALE: there is a later holder.
local fence = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
local term = tonumber(ARGV[1])
if term < fence then return 'STALE' end
if term > fence then
    redis.call('SET', KEYS[2], ARGV[1])
end
return {'OK', redis.call('GET', KEYS[1]) or ''}

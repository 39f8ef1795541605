#!lua
-- The lease of the active daemon. KEYS[1]: the lease. name, ms. OK, TAKEN.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 'TAKEN' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'OK'

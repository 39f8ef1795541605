#!lua
-- The owner's call brings no answer. KEYS: flight of the key. ARGV: key, owner, channel.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then return 'GONE' end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[3], ARGV[1])
return 'OK'

#!lua
-- Who may connect to brokers. KEYS: `ROLE PUBLIC-KEY EXPIRES-MS JOINED` by name; number of changes.
-- put, name, role, key, ms. OK.
-- remove, name. OK, GONE.
-- joined, name, key. OK, DUP, GONE (also when the name has another key now).
local what, name = ARGV[1], ARGV[2]
if what == 'put' then
    redis.call('HSET', KEYS[1], name, ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5] .. ' 0')
elseif what == 'remove' then
    if redis.call('HDEL', KEYS[1], name) == 0 then return 'GONE' end
else
    local role, key, ms, joined =
        string.match(redis.call('HGET', KEYS[1], name) or '', '^(%S+) (%S+) (%d+) (%d)$')
    if key ~= ARGV[3] then return 'GONE' end
    if joined == '1' then return 'DUP' end
    redis.call('HSET', KEYS[1], name, role .. ' ' .. key .. ' ' .. ms .. ' 1')
end
redis.call('INCR', KEYS[2])
return 'OK'

#!lua
-- Calls are still in flight. KEYS: flights. ARGV: ms of a flight, the owner of each. A flight that was
-- taken for lost is the owner's again, unless another one has begun.
local owners = redis.call('MGET', unpack(KEYS))
for i, key in ipairs(KEYS) do
    if not owners[i] or owners[i] == ARGV[i + 1] then
        redis.call('SET', key, ARGV[i + 1], 'PX', ARGV[1])
    end
end
return 'OK'

#!lua flags=allow-oom
-- Which Redis this is, and from when. KEYS[1]: the epoch. What to do, a new id, a sentence.
-- look; make: and make one where there is none; touch: and note the time; accept: make another one, which all are to
-- take; refuse: the error that a call gets which is not made. {id or '', time in s, whether all are to take it}
local what = ARGV[1]
if what == 'refuse' then return redis.error_reply('FOREIGN ' .. ARGV[3]) end
local old = redis.call('HMGET', KEYS[1], 'id', 'time', 'accepted')
local id, time, accepted = old[1], tonumber(old[2]) or 0, old[3] or '0'
local now = tonumber(redis.call('TIME')[1])
if what == 'accept' or (what == 'make' and not id) then
    id, time, accepted = ARGV[2], now, what == 'accept' and '1' or '0'
    redis.call('HSET', KEYS[1], 'id', id, 'time', time, 'accepted', accepted)
elseif what == 'touch' and id and now > time then
    time = now
    redis.call('HSET', KEYS[1], 'time', time)
end
return {id or '', time, accepted}

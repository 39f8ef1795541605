#!lua flags=allow-oom
-- Members of an index of times that are over, and first what the next call is to say. When the server's clock was set,
-- leases and delays move with it: forward, when it went further than the caller's monotonic clock since it was here
-- last; back, when it went back at all. Small corrections are left alone, so is what may have passed unobserved.
-- KEYS: index, clock, lease, delay. What the last call said, ms since then, name of the caller, offset, limit.
local call = redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local old = call('GET', KEYS[2])
local said, last = old or '', tonumber(old and string.match(old, '^%d+'))

local function move(key, ms)
    local all = call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for from = 1, #all, 1000 do
        local values = {}
        for i = from, math.min(from + 999, #all), 2 do
            values[#values + 1], values[#values + 2] = string.format('%.0f', all[i + 1] + ms), all[i]
        end
        call('ZADD', key, 'XX', unpack(values))
    end
end

if call('EXISTS', KEYS[3], KEYS[4]) == 0 then
    if old then
        call('DEL', KEYS[2])
    end
    said = ''
else
    local jump = last and now - last or 0
    if old and old == ARGV[1] then
        jump = jump - ARGV[2]
    elseif jump > 0 then
        jump = 0
    end
    if math.abs(jump) > 2000 then
        move(KEYS[3], jump)
        move(KEYS[4], jump)
    else
        jump = 0
    end
    if not last or jump ~= 0 or now - last >= 1000 then
        said = string.format('%.0f', now) .. ' ' .. ARGV[3]
        call('SET', KEYS[2], said)
    end
end
return {said, call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', ARGV[4], ARGV[5])}

#!lua flags=no-writes
-- What accounts have spent and hold today. KEYS: the accounts. {nano USD and tokens spent, and held, of each}
local today = tostring(math.floor(redis.call('TIME')[1] / 86400))
local answer = {}
for i, key in ipairs(KEYS) do
    local old = redis.call('HMGET', key, 'sums', 'day')
    local line = old[2] == today and old[1] or ''
    answer[i] = {string.match(line, '^%d+ %d+ (%d+) (%d+) (%d+) (%d+)')}
end
return answer

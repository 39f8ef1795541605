#!lua flags=allow-oom
-- An orchestrator takes its share of the shards. KEYS: members by expiry (ms), shards: "term member", "" where it is
-- nobody's. member, ms ("0": it leaves), shards that it gives up... {members, share, shards that are nobody's now, then
-- shard and term of each that is its own}. A shard is its holder's as long as that is a member. Terms only grow.
local call = redis.call
local members_key, shards_key = KEYS[1], KEYS[2]
local me, ms = ARGV[1], tonumber(ARGV[2])
local t = call('TIME')
local us = t[1] * 1000000 + t[2]
local now = math.floor(us / 1000)

call('ZREMRANGEBYSCORE', members_key, '-inf', now)
if ms > 0 then
    call('ZADD', members_key, now + ms, me)
    -- Redis's clock was set back: what expires late would keep its shards for as long.
    for _, name in ipairs(call('ZRANGEBYSCORE', members_key, '(' .. now + ms, '+inf')) do
        call('ZADD', members_key, now + ms, name)
    end
else
    call('ZREM', members_key, me)
end
local names, living = call('ZRANGE', members_key, 0, -1), {}
table.sort(names)
local share = 0
for rank, name in ipairs(names) do
    living[name] = true
    if name == me then
        share = math.floor(64 / #names) + (rank <= 64 % #names and 1 or 0)
    end
end

local gives = {}
for i = 3, #ARGV do
    gives[ARGV[i]] = true
end
local lines, mine, free, given, changed = {}, {}, {}, 0, {}
local flat = call('HGETALL', shards_key)
for i = 1, #flat, 2 do
    lines[flat[i]] = flat[i + 1]
end
local terms = {}
for number = 0, 63 do
    local shard = tostring(number)
    local term, holder = string.match(lines[shard] or '', '^(%d+) (.+)$')
    terms[shard] = tonumber(term or string.match(lines[shard] or '', '^%d+') or 0)
    if holder == me and (ms == 0 or gives[shard]) then
        changed[#changed + 1] = shard
        changed[#changed + 1] = string.format('%.0f', terms[shard])
        given = given + 1
    elseif holder == me then
        mine[#mine + 1] = shard
    elseif not (holder and living[holder]) then
        free[#free + 1] = shard
    end
end
local taken = 0
while #mine < share and taken < #free do
    taken = taken + 1
    local shard = free[taken]
    terms[shard] = math.max(terms[shard] + 1, us)
    mine[#mine + 1] = shard
    changed[#changed + 1] = shard
    changed[#changed + 1] = string.format('%.0f %s', terms[shard], me)
end
if #changed > 0 then
    call('HSET', shards_key, unpack(changed))
end
local answer = {#names, share, #free - taken + given}
for _, shard in ipairs(mine) do
    answer[#answer + 1] = shard
    answer[#answer + 1] = string.format('%.0f', terms[shard])
end
return answer

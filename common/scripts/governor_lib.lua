-- Included by governor.lua: the clock, the arguments, and the holders of permits.
local call, match = redis.call, string.match
local floor, ceil, max, min, HUGE = math.floor, math.ceil, math.max, math.min, math.huge
local CALLS_MS = 100     -- until the end of somebody's call is looked for
local PROBE_MS = 500     -- until a probe's end is looked for
local OUT_MS = 60000     -- until a new key is looked for
local FIRST_TOKENS = 1000 -- of a call, while nothing is known
local TOLD_MS, TOLD_MAX = 600000, 10000
local STATE_MS = 30 * 86400000

local time = call('TIME')
local us = time[1] * 1000000 + time[2]
local ms = floor(us / 1000)
local state_key, permits_key, hold_key, told_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local window_us, lease_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

-- Windows are rings of buckets (governor_window.lua).
local WIDTH = max(1, floor(window_us / 600)) -- us
local RING = ceil(window_us / WIDTH) + 1
local bucket_now = floor(us / WIDTH)

local function limits_at(i)
    local limits = {
        requests = tonumber(ARGV[i]), tokens = tonumber(ARGV[i + 1]), calls = tonumber(ARGV[i + 2]),
    }
    limits.windowed = limits.requests > 0 or limits.tokens > 0
    return limits
end
local provider_limits, key_limits = limits_at(3), limits_at(6)
local breaker_failures, breaker_ms = tonumber(ARGV[9]), tonumber(ARGV[10])
local worker, channel = ARGV[11], ARGV[12]
local names = {}
local window_keys = {} -- by key
for i = 1, tonumber(ARGV[13]) do
    names[i] = ARGV[13 + i]
    window_keys[names[i]] = KEYS[5 + i]
end
local first_operation = 14 + #names

-- Fields of state: k:<key>, a:<arm>, version, sequence (of the uses of keys), average (tokens of a
-- call).
local stored = {}
local flat = call('HGETALL', state_key)
for i = 1, #flat, 2 do stored[flat[i]] = flat[i + 1] end
local version, sequence = tonumber(stored.version) or 0, tonumber(stored.sequence) or 0
local learned = tonumber(stored.average)
local average = max(1, learned or FIRST_TOKENS)

local function learn(tokens)
    learned = learned and learned + (tokens - learned) / 16 or tokens
    average = max(1, learned)
end

local provider = {window_key = KEYS[5], calls = call('ZCARD', hold_key)}
local keys = {}
local function key_of(name)
    local key = keys[name]
    if key then return key end
    local used, calls, state, till, requests, requests_till, tokens, tokens_till =
        match(stored['k:' .. name] or '', '^(%d+) (%d+) (%a+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
    key = {
        name = name, window_key = window_keys[name], used = tonumber(used) or 0,
        calls = provider.calls > 0 and tonumber(calls) or 0,
        state = state or 'ok', till = tonumber(till) or 0,
        requests = tonumber(requests) or 0, requests_till = tonumber(requests_till) or 0,
        tokens = tonumber(tokens) or 0, tokens_till = tonumber(tokens_till) or 0,
    }
    if key.state ~= 'auth' and key.till <= ms then key.state, key.till = 'ok', 0 end
    keys[name] = key
    return key
end

-- Permits. A record is "tokens bucket worker key"; hold has its expiry.
local records = {}    -- by id; false: there is none
local expiries = {}   -- that are new, by id
local new_records = {}
local gone = {}       -- ids

local function record_of(text)
    local tokens, bucket, key = match(text or '', '^(%d+) (%d+) %S+ (.*)$')
    return key and {tokens = tonumber(tokens), bucket = tonumber(bucket), key = key} or false
end

local function permit(id)
    if records[id] == nil then records[id] = record_of(call('HGET', permits_key, id)) end
    return records[id]
end

local function drop(id, record)
    local key = key_of(record.key)
    key.calls = max(0, key.calls - 1)
    provider.calls = max(0, provider.calls - 1)
    records[id], new_records[id], expiries[id] = false, nil, nil
    gone[#gone + 1] = id
end

local function extend(id)
    expiries[id] = ms + lease_ms
end

local function hold(id, key, tokens)
    records[id] = {tokens = tokens, bucket = bucket_now, key = key.name}
    new_records[id] = records[id]
    key.calls, provider.calls = key.calls + 1, provider.calls + 1
    extend(id)
end

local function held(id)
    if expiries[id] then return true end
    local expiry = permit(id) and call('ZSCORE', hold_key, id)
    return expiry and tonumber(expiry) > ms
end

-- Those of workers that are gone.
for _, id in ipairs(call('ZRANGEBYSCORE', hold_key, '-inf', ms, 'LIMIT', 0, 500)) do
    local record = permit(id)
    if record then
        drop(id, record)
    else
        provider.calls = provider.calls - 1
        gone[#gone + 1] = id
    end
end

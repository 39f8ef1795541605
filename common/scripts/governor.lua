#!lua
-- What a worker asks of its provider's limits in one turn of its loop. It reads, decides in memory,
-- then writes. Safe to repeat: permits and failures are known by their ids.
-- KEYS: state, permits, hold, told, window of the provider, windows of the keys.
-- ARGV: window (us), lease of a permit (ms), requests, tokens and calls of the provider, the same of
-- each key, failures in a row that open a breaker, ms for which, the worker, the channel for news, how
-- many keys, the keys; then operations, each behind the number of its words:
--   acquire id arm tokens
--   settle id arm key called tokens verdict class effect ms requests reset tokens reset
--   renew id key id key...
--   clear key
-- {version, room in the windows, room in calls, ms until there may be more, {lines}, answers of
-- acquire...}; an answer is {verdict, key, ms, reason}.
-- include governor_lib
-- include governor_window
-- include governor_state

-- What keeps a call from starting in this scope, and for how many ms (nil: wait_ms() finds out);
-- nil: nothing does.
local function obstacle(scope, limits, tokens)
    if limits.calls > 0 and scope.calls >= limits.calls then return 'calls', CALLS_MS end
    if not limits.windowed then return end
    local window = open_window(scope)
    local requests = limits.requests > 0 and window.requests + 1 - limits.requests or 0
    local over = limits.tokens > 0 and window.tokens + min(tokens, limits.tokens) - limits.tokens or 0
    if requests <= 0 and over <= 0 then return end
    window.over_requests, window.over_tokens = requests, over
    return requests > 0 and 'requests' or 'tokens'
end

local function wait_ms(scope, wait)
    return wait or leave_ms(scope.window)
end

-- The same for a key, which can be out besides.
local function key_obstacle(key, tokens)
    if key.state == 'auth' then return 'out', OUT_MS end
    if key.state == 'quota' then return 'out', key.till - ms end
    if key.state == 'limited' then return 'blocked', key.till - ms end
    if key.requests_till > ms and key.requests < 1 then return 'server', key.requests_till - ms end
    if key.tokens_till > ms and key.tokens < tokens then return 'server', key.tokens_till - ms end
    return obstacle(key, key_limits, tokens)
end

-- The least recently used of the keys that can be used; else nil, the reason and the delay.
local function pick(tokens)
    local best
    for _, name in ipairs(names) do
        local key = key_of(name)
        if (not best or key.used < best.used) and not key_obstacle(key, tokens) then best = key end
    end
    if best then return best end
    local reason, delay, out_ms = nil, HUGE, OUT_MS
    for _, name in ipairs(names) do
        local key = key_of(name)
        local why, wait = key_obstacle(key, tokens)
        if why == 'out' then
            out_ms = min(out_ms, wait)
        else
            wait = wait_ms(key, wait)
            if wait < delay then reason, delay = why, wait end
        end
    end
    return nil, reason or 'out', reason and delay or out_ms
end

local function take(id, key, tokens)
    charge(provider, provider_limits, bucket_now, 1, tokens)
    charge(key, key_limits, bucket_now, 1, tokens)
    if key.requests_till > ms then key.requests = max(0, key.requests - 1) end
    if key.tokens_till > ms then key.tokens = max(0, key.tokens - tokens) end
    sequence = sequence + 1
    key.used = sequence
    hold(id, key, tokens)
end

local function acquire(id, arm_name, tokens)
    local record = permit(id)
    if record then return {'GRANTED', record.key, 0, ''} end
    local arm = arm_of(arm_name)
    if arm.open then
        if arm.till > ms then return {'OPEN', '', arm.till - ms, 'breaker'} end
        if held(arm.probe) then return {'OPEN', '', PROBE_MS, 'probe'} end
    end
    if tokens == 0 then tokens = ceil(average) end
    local why, wait = obstacle(provider, provider_limits, tokens)
    if why then return {'WAIT', '', wait_ms(provider, wait), 'provider ' .. why} end
    local key
    key, why, wait = pick(tokens)
    if not key then return {why == 'out' and 'NO_KEY' or 'WAIT', '', wait, 'key ' .. why} end
    if arm.open then
        arm.probe = id
        arm.dirty = true
    end
    take(id, key, tokens)
    return {'GRANTED', key.name, 0, ''}
end

-- Corrects what the permit was charged. What was charged too much leaves the bucket in which it is:
-- taken from a later one, it would leave room that is not there once the first has passed. What was
-- charged too little counts from now on.
local function correct(record, called, tokens)
    local key = key_of(record.key)
    if not called then
        charge(provider, provider_limits, record.bucket, -1, -record.tokens)
        charge(key, key_limits, record.bucket, -1, -record.tokens)
        if key.requests_till > ms then key.requests = key.requests + 1 end
        if key.tokens_till > ms then key.tokens = key.tokens + record.tokens end
    elseif tokens >= 0 then
        local more = tokens - record.tokens
        local bucket = more > 0 and bucket_now or record.bucket
        charge(provider, provider_limits, bucket, 0, more)
        charge(key, key_limits, bucket, 0, more)
        learn(tokens)
    end
end

local function settle(id, arm_name, key_name, called, tokens, verdict, class, effect, delay, ...)
    local record = permit(id)
    if record then
        correct(record, called == '1', tonumber(tokens))
        drop(id, record)
    end
    if (effect == '-' and verdict ~= 'bad') or not told(id) then
        judge(arm_of(arm_name), id, verdict, class)
        punish(key_of(key_name), effect, tonumber(delay))
    end
    if called == '1' then believe(key_of(key_name), ...) end
end

local function renew(...)
    local words = {...}
    for i = 1, #words, 2 do
        if permit(words[i]) then
            extend(words[i])
        else -- it was taken for lost, but the call still runs
            hold(words[i], key_of(words[i + 1]), 0)
        end
    end
end

local function clear(name)
    local key = key_of(name)
    if key.state == 'auth' or key.state == 'quota' then
        key.state, key.till = 'ok', 0
        tell_key(key)
    end
end

local operations = {
    acquire = function(id, arm, tokens) return acquire(id, arm, tonumber(tokens)) end,
    settle = settle,
    renew = renew,
    clear = clear,
}

local function room_of(scope, limits)
    local rate, calls = HUGE, HUGE
    if limits.calls > 0 then calls = max(0, limits.calls - scope.calls) end
    if limits.windowed then
        local window = open_window(scope)
        if limits.requests > 0 then rate = limits.requests - window.requests end
        if limits.tokens > 0 then
            rate = min(rate, floor((limits.tokens - window.tokens) / min(average, limits.tokens)))
        end
    end
    return max(0, rate), calls
end

-- Calls that could start now, by the windows and by the calls at once; ms until there may be more.
local function room()
    local tokens = ceil(average)
    local rate, calls = room_of(provider, provider_limits)
    local obstructed, delay = obstacle(provider, provider_limits, tokens)
    delay = obstructed and wait_ms(provider, delay) or 0
    local keys_rate, keys_calls, keys_ms = 0, 0, HUGE
    for _, name in ipairs(names) do
        local key = key_of(name)
        local why, wait = key_obstacle(key, tokens)
        if not why or why == 'calls' then
            local key_rate, key_calls = room_of(key, key_limits)
            if key.requests_till > ms then key_rate = min(key_rate, key.requests) end
            keys_rate, keys_calls = keys_rate + key_rate, keys_calls + key_calls
        end
        keys_ms = min(keys_ms, why and wait_ms(key, wait) or 0)
    end
    return min(rate, keys_rate), min(calls, keys_calls), max(delay, keys_ms)
end

local function number(n)
    return n == HUGE and -1 or n
end

local answers = {}
local at = first_operation
while ARGV[at] do
    local n = tonumber(ARGV[at])
    local answer = operations[ARGV[at + 1]](unpack(ARGV, at + 2, at + n))
    if answer then answers[#answers + 1] = answer end
    at = at + n + 1
end
local rate, calls, delay = room()
write()
return {version, number(rate), number(calls), number(delay), lines(), unpack(answers)}

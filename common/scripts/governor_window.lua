-- Included by governor.lua: what was permitted in the last window_us, exactly: a ring of buckets
-- with their sum. A bucket leaves once all that it holds is older than the window; so it counts for
-- up to a bucket's width longer, 1/600 of the window.

local function parse(value)
    local requests, tokens = match(value or '', '^(%-?%d+) (%-?%d+)$')
    return tonumber(requests) or 0, tonumber(tokens) or 0
end

local function advance(window)
    local slots = {}
    for bucket = window.head + 1, window.bucket do slots[#slots + 1] = bucket % RING end
    local values = call('HMGET', window.key, unpack(slots))
    for i, slot in ipairs(slots) do
        if values[i] then
            local requests, tokens = parse(values[i])
            window.requests, window.tokens = window.requests - requests, window.tokens - tokens
            window.expired[#window.expired + 1] = slot
        end
    end
end

local function open_window(scope)
    if scope.window then return scope.window end
    local key = scope.window_key
    local got = call('HMGET', key, 'head', 'requests', 'tokens')
    local head = tonumber(got[1])
    local window = {key = key, requests = 0, tokens = 0, changed = {}, expired = {}, leaving = {}}
    scope.window = window
    -- Idle for longer than the window, or the clock was set back by more than it.
    if not head or math.abs(bucket_now - head) >= RING then
        window.fresh, window.head, window.bucket = true, bucket_now, bucket_now
        return window
    end
    window.head, window.bucket = head, max(head, bucket_now)
    window.requests, window.tokens = tonumber(got[2]) or 0, tonumber(got[3]) or 0
    if window.bucket > head then advance(window) end
    return window
end

local function charge(scope, limits, bucket, requests, tokens)
    if not limits.windowed or not scope.window_key then return end
    local window = open_window(scope)
    if bucket > window.bucket or window.bucket - bucket >= RING then return end -- it has left
    local held_now = window.changed[bucket]
    if not held_now then
        held_now = {requests = 0, tokens = 0}
        if not window.fresh and bucket <= window.head then
            held_now.requests, held_now.tokens = parse(call('HGET', window.key, bucket % RING))
        end
        window.changed[bucket] = held_now
    end
    held_now.requests, held_now.tokens = held_now.requests + requests, held_now.tokens + tokens
    window.requests, window.tokens = window.requests + requests, window.tokens + tokens
end

-- How much leaves the window with its i-th bucket and those before it.
local function leave(window, i)
    local first = window.bucket - RING + 1
    local place = (i - 1) % 64
    if place == 0 then
        local slots = {}
        for bucket = first + i - 1, min(first + i + 62, window.bucket) do
            slots[#slots + 1] = bucket % RING
        end
        window.values = call('HMGET', window.key, unpack(slots))
    end
    local bucket, requests, tokens = first + i - 1, 0, 0
    local changed = window.changed[bucket]
    if changed then
        requests, tokens = changed.requests, changed.tokens
    elseif not window.fresh and bucket <= window.head then
        requests, tokens = parse(window.values[place + 1])
    end
    local before = window.leaving[i - 1] or {requests = 0, tokens = 0}
    window.leaving[i] = {requests = before.requests + requests, tokens = before.tokens + tokens}
    return window.leaving[i]
end

-- ms until so much has left the window that the call which obstacle() looked at can start.
local function leave_ms(window)
    for i = 1, RING do
        local left = window.leaving[i] or leave(window, i)
        if left.requests >= window.over_requests and left.tokens >= window.over_tokens then
            return max(1, ceil(((window.bucket + i) * WIDTH - us) / 1000))
        end
    end
    return ceil(window_us / 1000)
end

local function write_window(window)
    if window.fresh then
        call('DEL', window.key)
    elseif #window.expired > 0 then
        call('HDEL', window.key, unpack(window.expired))
    end
    local fields = {'head', window.bucket, 'requests', window.requests, 'tokens', window.tokens}
    for bucket, held_now in pairs(window.changed) do
        fields[#fields + 1] = bucket % RING
        fields[#fields + 1] = held_now.requests .. ' ' .. held_now.tokens
    end
    call('HSET', window.key, unpack(fields))
    call('PEXPIRE', window.key, ceil(window_us / 500))
end

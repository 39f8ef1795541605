-- Included by governor.lua: breakers, keys that are out or blocked, and telling the other workers.

-- Breakers. An arm that is closed and without failures is not stored.
local arms = {}
local function arm_of(name)
    local arm = arms[name]
    if arm then return arm end
    local state, failures, trips, till, class, probe =
        match(stored['a:' .. name] or '', '^(%a+) (%d+) (%d+) (%d+) (%S+) (%S+)$')
    arm = {
        name = name, open = state == 'open', failures = tonumber(failures) or 0,
        trips = tonumber(trips) or 0, till = tonumber(till) or 0, class = class or '-',
        probe = probe or '-',
    }
    arms[name] = arm
    return arm
end

-- A line for the workers; the name comes last, because it may have blanks.
local function arm_line(arm)
    return 'a ' .. (arm.open and 'open' or 'closed') .. ' ' .. arm.failures .. ' ' .. arm.trips ..
        ' ' .. max(0, arm.till - ms) .. ' ' .. arm.class .. ' ' .. arm.name
end

local function key_line(key)
    return 'k ' .. key.state .. ' ' .. max(0, key.till - ms) .. ' ' .. key.name
end

local news = {}
local function tell_key(key)
    news[#news + 1] = key_line(key)
end

local function tell_arm(arm)
    arm.dirty = true
    news[#news + 1] = arm_line(arm)
end

local function trip(arm, class)
    arm.trips, arm.open, arm.class = arm.trips + 1, true, class
    arm.till = ms + breaker_ms * min(10, 2 ^ min(10, arm.trips - 1))
    tell_arm(arm)
end

local function close(arm)
    arm.open, arm.failures, arm.trips, arm.till, arm.class = false, 0, 0, 0, '-'
    tell_arm(arm)
end

-- verdict: good (the server answered), bad (overloaded, timeout), weak (bad for a probe only), "-"
-- (says nothing). What began before the breaker opened says nothing any more.
local function judge(arm, id, verdict, class)
    if breaker_failures == 0 then return end
    if arm.open then
        if arm.probe ~= id then return end
        arm.probe, arm.dirty = '-', true
        if verdict == 'good' then
            close(arm)
        elseif verdict ~= '-' then
            trip(arm, class)
        end
    elseif verdict == 'good' and arm.failures > 0 then
        close(arm)
    elseif verdict == 'bad' then
        arm.failures, arm.class, arm.dirty = arm.failures + 1, class, true
        if arm.failures >= breaker_failures then
            trip(arm, class)
        elseif arm.failures == 1 then
            tell_arm(arm)
        end
    end
end

local severity = {ok = 0, limited = 1, quota = 2, auth = 3}

local function punish(key, effect, delay)
    local now, then_ = severity[key.state] or 0, severity[effect]
    local till = effect == 'auth' and 0 or ms + delay
    if not then_ or then_ < now or (then_ == now and till <= key.till) then return end
    key.state, key.till = effect, till
    tell_key(key)
end

-- What the server says is left, until it starts anew: at most so much may start.
local function believe(key, requests, requests_ms, tokens, tokens_ms)
    requests, requests_ms = tonumber(requests), tonumber(requests_ms)
    tokens, tokens_ms = tonumber(tokens), tonumber(tokens_ms)
    if requests >= 0 then key.requests, key.requests_till = requests, ms + requests_ms end
    if tokens >= 0 then key.tokens, key.tokens_till = tokens, ms + tokens_ms end
    local block = max(requests == 0 and requests_ms or 0, tokens == 0 and tokens_ms or 0)
    if block > 0 then punish(key, 'limited', block) end
end

-- Whether the failure of this permit has been counted; from now on it has.
local told_now = {}
local function told(id)
    if told_now[id] or call('ZSCORE', told_key, id) then return true end
    told_now[id] = true
    return false
end

-- All that is not as it should be.
local function lines()
    local all = {}
    for field, value in pairs(stored) do
        local kind, name = match(field, '^(%a):(.*)$')
        if kind == 'a' then arm_of(name) end
        if kind == 'k' and match(value, ' ok ') == nil then key_of(name) end
    end
    for _, arm in pairs(arms) do
        if arm.open or arm.failures > 0 then all[#all + 1] = arm_line(arm) end
    end
    for _, key in pairs(keys) do
        if key.state ~= 'ok' then all[#all + 1] = key_line(key) end
    end
    return all
end

local function write_state()
    local set, del = {}, {}
    local function put(field, value)
        if stored[field] ~= value then
            set[#set + 1] = field
            set[#set + 1] = value
        end
    end
    for name, key in pairs(keys) do
        put('k:' .. name, key.used .. ' ' .. key.calls .. ' ' .. key.state .. ' ' .. key.till ..
            ' ' .. key.requests .. ' ' .. key.requests_till .. ' ' .. key.tokens .. ' ' ..
            key.tokens_till)
    end
    for name, arm in pairs(arms) do
        if arm.dirty and (arm.open or arm.failures > 0) then
            put('a:' .. name, (arm.open and 'open' or 'closed') .. ' ' .. arm.failures .. ' ' ..
                arm.trips .. ' ' .. arm.till .. ' ' .. arm.class .. ' ' .. arm.probe)
        elseif arm.dirty and stored['a:' .. name] then
            del[#del + 1] = 'a:' .. name
        end
    end
    put('sequence', tostring(sequence))
    if learned then put('average', string.format('%.3f', learned)) end
    -- By the clock, so that it grows even when Redis has lost what it had.
    if #news > 0 or version == 0 then version = max(version + 1, ms) end
    put('version', tostring(version))
    if #set > 0 then
        call('HSET', state_key, unpack(set))
        call('PEXPIRE', state_key, STATE_MS)
    end
    if #del > 0 then call('HDEL', state_key, unpack(del)) end
end

local function write_permits()
    local set, scores = {}, {}
    for id, record in pairs(new_records) do
        set[#set + 1] = id
        set[#set + 1] = record.tokens .. ' ' .. record.bucket .. ' ' .. worker .. ' ' .. record.key
    end
    for id, expiry in pairs(expiries) do
        scores[#scores + 1] = expiry
        scores[#scores + 1] = id
    end
    if #gone > 0 then
        call('ZREM', hold_key, unpack(gone))
        call('HDEL', permits_key, unpack(gone))
    end
    if #set > 0 then call('HSET', permits_key, unpack(set)) end
    if #scores > 0 then
        call('ZADD', hold_key, unpack(scores))
        call('PEXPIRE', hold_key, STATE_MS)
        call('PEXPIRE', permits_key, STATE_MS)
    end
end

local function write_told()
    local scores = {}
    for id in pairs(told_now) do
        scores[#scores + 1] = ms
        scores[#scores + 1] = id
    end
    if #scores == 0 then return end
    call('ZADD', told_key, unpack(scores))
    call('ZREMRANGEBYSCORE', told_key, '-inf', ms - TOLD_MS)
    call('ZREMRANGEBYRANK', told_key, 0, -TOLD_MAX - 1)
    call('PEXPIRE', told_key, TOLD_MS)
end

local function write()
    write_state()
    write_permits()
    write_told()
    if provider.window then write_window(provider.window) end
    for _, key in pairs(keys) do
        if key.window then write_window(key.window) end
    end
    if #news > 0 then
        call('PUBLISH', channel, version .. '\n' .. table.concat(news, '\n'))
    end
end

-- Budgets. A budget is a line of words: the limit, what was spent and what is held, each in nano USD and in tokens,
-- and "over" once a call has cost more than was held for it. That of the task is its field `budget`, that of a role
-- in it the field role:<role>; an account (day, role:<role>) is a hash: day (since the epoch, UTC), sums (the line),
-- and hold:<T>/<id>/<token> of each hold. An account of another day counts as empty: a call belongs to the day on
-- which it was reserved.
-- Holds of a subtask are the line hold:<id>: "token nano tokens n account..." of each, with n accounts.
-- Nothing is written before write_budgets().
local budgets, hold_lines = {}, {}
local today, account_keys

-- Lua prints large numbers in rounded form. Beyond 2^53 they are not exact: there they stay.
local function digits(number)
    return string.format('%.0f', math.max(0, math.min(number, 9007199254740991)))
end

-- Keys of accounts are the last of KEYS.
local function account_key(name)
    if not account_keys then
        account_keys = {}
        for i = #KEYS, 1, -1 do
            local account = match(KEYS[i], '^orch:{b}:account:(.+)$')
            if not account then break end
            account_keys[account] = KEYS[i]
        end
    end
    return account_keys[name]
end

-- The budget "task" (nil when the task has none), "task-role:<role>", or the account of that name (nil when its key
-- is not among KEYS).
local function budget_of(name)
    local key, field = task_key, name == 'task' and 'budget' or match(name, '^task%-(role:.+)$')
    if not field then
        key, field = account_key(name), 'sums'
        if not key then return nil end
    end
    local place = key .. ' ' .. field
    local budget = budgets[place]
    if budget then return budget end
    local line, old
    if field == 'sums' then
        today = today or tostring(math.floor(call('TIME')[1] / 86400))
        line, old = unpack(call('HMGET', key, 'sums', 'day'))
        line = old == today and line
    else
        line = call('HGET', key, field)
        if not line and name == 'task' then return nil end
    end
    budget = {match(line or '0 0 0 0 0 0', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)( ?%l*)$')}
    if not budget[1] then
        error(redis.error_reply('DAMAGED ' .. field .. ' is not readable in ' .. key))
    end
    for i = 1, 6 do
        budget[i] = tonumber(budget[i])
    end
    budget.name, budget.key, budget.field, budget.removed, budget.added = name, key, field, {}, {}
    budget.account, budget.new = field == 'sums', field == 'sums' and old ~= today
    budgets[place] = budget
    return budget
end

local function read_holds(id, text)
    local words, holds, i = {}, {}, 1
    for word in string.gmatch(text or '', '%S+') do
        words[#words + 1] = word
    end
    while words[i] do
        local n = tonumber(words[i + 3] or '')
        local hold = {token = words[i], tonumber(words[i + 1] or ''), tonumber(words[i + 2] or '')}
        if not hold[1] or not hold[2] or not n or #words < i + 3 + n then
            error(redis.error_reply('DAMAGED hold:' .. id .. ' is not readable in ' .. task_key))
        end
        hold.names = {unpack(words, i + 4, i + 3 + n)}
        hold.member = 'hold:' .. T .. '/' .. id .. '/' .. hold.token
        holds[#holds + 1] = hold
        i = i + 4 + n
    end
    return holds
end

-- Stores what the subtask holds from now on.
local function keep_holds(id, holds)
    local words = {}
    for _, hold in ipairs(holds) do
        words[#words + 1] = hold.token
        words[#words + 1] = digits(hold[1])
        words[#words + 1] = digits(hold[2])
        words[#words + 1] = #hold.names
        for _, name in ipairs(hold.names) do
            words[#words + 1] = name
        end
    end
    hold_lines[#hold_lines + 1] = {key = task_key, field = 'hold:' .. id, line = table.concat(words, ' ')}
end

-- The budgets that a hold counts in. Names of accounts without a key are added to `missing`.
local function held_in(hold, missing)
    local list = {budget_of('task')}
    for _, name in ipairs(hold.names) do
        local budget = budget_of(name)
        if not budget then
            missing[#missing + 1] = name
        elseif not budget.account or (not budget.new and call('HEXISTS', budget.key, hold.member) == 1) then
            list[#list + 1] = budget
        end
    end
    return list
end

-- What was held is no longer; instead, `cost` was spent.
local function settle_in(list, hold, cost)
    for _, budget in ipairs(list) do
        for unit = 1, 2 do
            budget[4 + unit] = budget[4 + unit] - hold[unit]
            budget[2 + unit] = budget[2 + unit] + cost[unit]
            if cost[unit] > hold[unit] then
                budget[7] = ' over'
            end
        end
        if budget.account then
            table.insert(budget.removed, hold.member)
        end
        budget.changed = true
    end
end

local NOTHING = {0, 0}

-- The budgets of the holds of the token, or of all holds (nil), by the place of the hold. When keys of accounts are
-- missing: nil, and the answer that says so.
local function settling(holds, token)
    local lists, missing = {}, {'ACCOUNTS'}
    for i, hold in ipairs(holds) do
        if not token or hold.token == token then
            lists[i] = held_in(hold, missing)
        end
    end
    if #missing > 1 then return nil, missing end
    return lists
end

-- Settles the holds that have a list. known: what it cost, of the token's attempt, in nano USD and tokens. When nobody knows it (nil;
-- and of other attempts), it is what was held. Returns the holds that are left.
local function settle(id, holds, lists, token, known)
    local left = {}
    for i, hold in ipairs(holds) do
        if not lists[i] then
            left[#left + 1] = hold
        else
            local cost = hold.token == token and known or nil
            settle_in(lists[i], hold, cost or hold)
            if cost and (cost[1] > hold[1] or cost[2] > hold[2]) then
                log(sub(clock(), 1, -4), 'note', id, match(hold.token, '^%d+') or 0, '- - -', '-', string.format(
                    'the provider charged $%.6f and %d tokens, more than the $%.6f and %d tokens that were reserved',
                    cost[1] / 1e9, cost[2], hold[1] / 1e9, hold[2]))
            end
        end
    end
    if #left < #holds then
        keep_holds(id, left)
    end
    return left
end

-- Settles all holds of the subtasks: lines by id. Returns the answer when keys are missing.
local function settle_all(lines)
    local holds, lists, missing, answer = {}, {}, nil, {'ACCOUNTS'}
    for id, line in pairs(lines) do
        holds[id] = read_holds(id, line)
        lists[id], missing = settling(holds[id])
        for i = 2, #(missing or '') do
            answer[#answer + 1] = missing[i]
        end
    end
    if #answer > 1 then return answer end
    for id in pairs(lines) do
        settle(id, holds[id], lists[id])
    end
end

-- "nano tokens", or nil.
local function read_cost(text)
    local nano, tokens = match(text, '^(%d+) (%d+)$')
    return nano and {tonumber(nano), tonumber(tokens)}
end

local function write_budgets()
    for _, budget in pairs(budgets) do
        if budget.changed then
            local words = {}
            for i = 1, 6 do
                words[i] = digits(budget[i])
            end
            local line = table.concat(words, ' ') .. budget[7]
            if not budget.account then
                call('HSET', budget.key, budget.field, line)
            else
                if budget.new then
                    call('DEL', budget.key)
                end
                for _, member in ipairs(budget.removed) do
                    call('HDEL', budget.key, member)
                end
                call('HSET', budget.key, 'day', today, 'sums', line, unpack(budget.added))
            end
        end
    end
    for _, hold in ipairs(hold_lines) do
        if hold.line == '' then
            call('HDEL', hold.key, hold.field)
        else
            call('HSET', hold.key, hold.field, hold.line)
        end
    end
    budgets, hold_lines = {}, {}
end

#!lua
-- Reserves the worst case of a call, of the task's budget and of others that have a limit, or of none; instead of what
-- was reserved for the token before. T, id, token, nano USD, tokens; name, limit in nano USD and in tokens of each other
-- budget. KEYS: also those of the accounts.
-- OK, STALE, CANCEL, GONE; {WAIT or BUDGET, name, usd or tokens, limit, spent, held, this}; {ACCOUNTS, names...}: whose
-- keys are missing; nothing has changed.
-- include lib
-- include lib_line
-- include lib_run
-- include lib_budget
local id, token, worst = ARGV[2], ARGV[3], {tonumber(ARGV[4]), tonumber(ARGV[5])}
local old = call('HMGET', task_key, 'sub:' .. id, 'run:' .. id, 'hold:' .. id)
if not old[1] then return 'GONE' end
local state = match(old[1], '^%u+')
if state == 'CANCELLED' then return 'CANCEL' end
local attempts = read_run(old[2] or '')
if state ~= 'RUNNING' or not find_attempt(attempts, token) then return 'STALE' end

local missing, before, others = {'ACCOUNTS'}, nil, {}
for _, hold in ipairs(read_holds(id, old[3])) do
    if hold.token == token then
        before = hold
    else
        others[#others + 1] = hold
    end
end
local held_before = before and held_in(before, missing) or {}
local list, hold = {budget_of('task')}, {token = token, worst[1], worst[2], names = {},
    member = 'hold:' .. T .. '/' .. id .. '/' .. token}
for i = 6, #ARGV, 3 do
    local name, budget = ARGV[i], budget_of(ARGV[i])
    if not budget then
        missing[#missing + 1] = name
    elseif not budget.limit then
        budget.limit = {tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])}
        hold.names[#hold.names + 1] = name
        list[#list + 1] = budget
    end
end
if #missing > 1 then return missing end

-- What was held for the token is free for it.
for _, budget in ipairs(held_before) do
    budget.own = before
end
local answer
for _, budget in ipairs(list) do
    local limits, own = budget.limit or budget, budget.own or NOTHING
    for unit = 1, 2 do
        local limit, spent, held = limits[unit], budget[2 + unit], budget[4 + unit] - own[unit]
        local over = spent + worst[unit] > limit and 'BUDGET' or spent + held + worst[unit] > limit and 'WAIT'
        if limit > 0 and over and (not answer or (over == 'BUDGET' and answer[1] == 'WAIT')) then
            answer = {over, budget.name, unit == 1 and 'usd' or 'tokens', digits(limit), digits(spent), digits(held),
                digits(worst[unit])}
        end
    end
end
if answer then return answer end
if #list == 0 and not before then return 'OK' end

-- Nothing below may fail.
for _, budget in ipairs(held_before) do
    for unit = 1, 2 do
        budget[4 + unit] = budget[4 + unit] - before[unit]
    end
    if budget.account then
        table.insert(budget.removed, hold.member)
    end
    budget.changed = true
end
for _, budget in ipairs(list) do
    for unit = 1, 2 do
        budget[4 + unit] = budget[4 + unit] + worst[unit]
        if budget.limit then
            budget[unit] = budget.limit[unit]
        end
    end
    if budget.account then
        budget.added = {hold.member, digits(worst[1]) .. ' ' .. digits(worst[2])}
    end
    budget.changed = true
end
if #list > 0 then
    others[#others + 1] = hold
end
keep_holds(id, others)
write_budgets()
call('HSET', task_key, 'run:' .. id, write_run(attempts, #others > 0))
return 'OK'

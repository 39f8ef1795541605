#!lua
-- Any number of subtasks: id, token, outcome, timing, "nano tokens" (what it has cost) or '' of each. KEYS: behind the
-- others those of the accounts. OK, DUP, STALE, CANCELLED, GONE; {ACCOUNTS, names...}: whose keys are missing.
-- include lib
-- include lib_line
-- include lib_ready
-- include lib_hmget
local us = clock()
local ms = sub(us, 1, -4)
local answers = {}
local done, paid -- of the task at hand

-- Successors that are waiting, by id, as far as the task's commits concern them.
local nodes, order

-- Whether a subtask's successors are readable; then they have one less to wait for.
local function unblock(succ)
    local ids = {}
    for id in string.gmatch(succ, '%S+') do
        ids[#ids + 1] = id
    end
    local found = hmget(task_key, 'sub:', ids)
    for i, id in ipairs(ids) do
        local node = nodes[id] or {id = id, s = parse(found[i] or '')}
        if not node.s[STATE] then return false, id end
        found[i] = node
    end
    for i, id in ipairs(ids) do
        local node = nodes[id] or found[i]
        if not nodes[id] then
            nodes[id] = node
            order[#order + 1] = node
        end
        if node.s[STATE] == 'BLOCKED' then
            node.s[INDEG], node.fewer = math.max(node.s[INDEG] - 1, 0), true
        end
    end
    return true
end

-- For subtasks that have a hedge or hold something of a budget: made when there is one. first(): the commit's attempt
-- and what is to be settled, or nil and the answer. second() settles it; returns the run line, and whether something
-- is still held.
local first, second, write
local function prepare()
    -- include lib_run
    -- include lib_budget
    function first(id, run, token)
        local attempts, held = read_run(run)
        local place, lists, missing = find_attempt(attempts, token), {}, nil
        if not place then return nil, 'STALE' end
        local holds = held and read_holds(id, call('HGET', task_key, 'hold:' .. id)) or {}
        lists, missing = settling(holds, token)
        if not lists then return nil, missing end
        return {attempt = attempts[place], holds = holds, lists = lists}
    end
    function second(id, mine, cost)
        local left = settle(id, mine.holds, mine.lists, mine.attempt.token, read_cost(cost))
        return write_run({mine.attempt}, #left > 0), #left > 0
    end
    write = write_budgets
end

-- Says what is to be written for the commit whose arguments begin at ARGV[i].
local function commit(i, remaining, line, run, succ)
    local id, token = ARGV[i], ARGV[i + 1]
    if not line then return 'GONE' end
    local state, att, rest, prio, exp =
        match(line, '^(%u+) (%d+) (%d+ %d+ %d+ %d+ %S+ %d+ (%-?%d+) ([012]) %d+.*)$')
    if not state or not remaining then return damaged(id) end
    if state == 'CANCELLED' then return 'CANCELLED' end
    local owner, number, more = match(run or '', '^((%d+)%-%S+) %S+ %S+(.*)$')
    if owner ~= token and (not more or more == '') then return 'STALE' end
    if state == 'DONE' then return owner == token and 'DUP' or 'STALE' end
    if state ~= 'RUNNING' then return 'STALE' end
    local mine, why
    if more ~= '' then
        if not first then
            prepare()
        end
        mine, why = first(id, run, token)
        if not mine then return why end
        number = mine.attempt.number
    end
    if succ then
        local readable, which = unblock(succ)
        if not readable then return damaged(which) end
    end
    local lines, data, leases = later('HSET', task_key), later('HSET', data_key), later('ZREM', lease_key)
    local n, held = #lines, false
    lines[n + 1], lines[n + 2] = 'sub:' .. id, 'DONE ' .. att .. ' ' .. rest
    if mine then
        run, held = second(id, mine, ARGV[i + 4])
        lines[n + 3], lines[n + 4] = 'run:' .. id, run
        run = mine.attempt.words
    end
    n = #data
    data[n + 1], data[n + 2] = 'outcome:' .. id, ARGV[i + 2]
    data[n + 3], data[n + 4] = 'timing:' .. id, ARGV[i + 3]
    if not held then
        leases[#leases + 1] = T .. '/' .. id
    end
    if ARGV[i + 4] ~= '' then
        paid = paid + (tonumber(match(ARGV[i + 4], '^(%d+) %d+$')) or 0)
    end
    done[#done + 1] = {id = id, att = number, prio = prio, exp = exp, run = run, timing = ARGV[i + 3]}
    return 'OK'
end

-- The successors' lines; returns those that become READY.
local function unblocked()
    local ready, lines = {}, later('HSET', task_key)
    for _, node in ipairs(order) do
        if node.fewer and node.s[INDEG] <= 0 then
            ready[#ready + 1] = node
        elseif node.fewer then
            lines[#lines + 1] = 'sub:' .. node.id
            lines[#lines + 1] = concat(node.s, ' ')
        end
    end
    return ready
end

-- What the commits of one task do to the task.
local function advance(state, remaining)
    local over = remaining <= 0 and (state == 'RUNNING' or state == 'LOADING')
    local lines, events = later('HSET', task_key), later('XADD', ev_key)
    for i, d in ipairs(done) do
        local reached = over and i == #done and 'DONE' or '-'
        events[#events + 1] = 'DONE ' .. T .. ' ' .. d.id .. ' ' .. d.att .. ' ' .. d.prio .. ' ' .. d.exp .. ' - ' ..
            reached .. ' '
        events[#events + 1] = d.timing
        log(ms, 'done', d.id, d.att, d.run, '-', '', reached)
    end
    local n = #lines
    lines[n + 1], lines[n + 2] = 'remaining', remaining
    if over then
        lines[n + 3], lines[n + 4], lines[n + 5], lines[n + 6] = 'state', 'DONE', 'finished', ms
        local finished = later('ZADD', fin_key)
        finished[#finished + 1] = ms
        finished[#finished + 1] = T
    end
    if paid > 0 then
        call('HINCRBY', task_key, 'cost', string.format('%.0f', paid))
    end
    make_ready(unblocked(), us)
end

while ARGV[at] do
    -- next task
    done, paid, nodes, order = {}, 0, {}, {}
    local asked, n = {'state', 'remaining'}, 2
    for i = at, last, 5 do
        local id = ARGV[i]
        asked[n + 1], asked[n + 2], asked[n + 3] = 'sub:' .. id, 'run:' .. id, 'succ:' .. id
        n = n + 3
    end
    local old = call('HMGET', task_key, unpack(asked))
    local remaining = tonumber(old[2])
    n = 2
    for i = at, last, 5 do
        answers[#answers + 1] = commit(i, remaining, old[n + 1], old[n + 2], old[n + 3])
        n = n + 3
    end
    if #done > 0 then
        advance(old[1], remaining - #done)
    end
    at = last + 1
end
if write then
    write()
end
told()
return answers

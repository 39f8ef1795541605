#!lua
-- Any number of subtasks: id, worker, arm, nonce, lease in ms of each. {OK, token, attempt, us in the
-- queue, 1 if the task has a budget, work, outcomes of the dependencies...}; {TAKEN}, {GONE}, {CANCEL}.
-- include lib
-- include lib_line
-- include lib_hmget
local us = clock()
local ms = sub(us, 1, -4)
local answers = {}
local wanted, claimed, budgeted -- of the task at hand

-- Says what is to be written and read for the claim whose arguments begin at ARGV[i].
local function claim(i, line, deps, run, work)
    local id, nonce = ARGV[i], ARGV[i + 3]
    if not line then return {'GONE'} end
    local state, att, left, indeg, rdy, queue, rest =
        match(line, '^(%u+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+ %d+ %-?%d+ [012] %d+.*)$')
    if not state then return damaged(id) end
    if state == 'CANCELLED' then return {'CANCEL'} end
    local token, member = nil, T .. '/' .. id
    if state == 'READY' then
        att, left, queue = att + 1, left - 1, us - rdy
        if left < 0 then left = 0 end
        if queue < 0 then queue = 0 end
        token = att .. '-' .. nonce
        run = token .. ' ' .. ARGV[i + 1] .. ' ' .. ARGV[i + 2]
        local lines, taken = later('HSET', task_key), later('ZREM', ready_key)
        local n = #lines
        lines[n + 1], lines[n + 2] = 'sub:' .. id,
            'RUNNING ' .. att .. ' ' .. left .. ' ' .. indeg .. ' ' .. rdy .. ' ' .. queue .. ' ' .. rest
        lines[n + 3], lines[n + 4] = 'run:' .. id, run
        taken[#taken + 1] = member
        log(ms, 'running', id, att, run, '-', '')
        local leases = later('ZADD', lease_key)
        leases[#leases + 1] = ms + ARGV[i + 4]
        leases[#leases + 1] = member
    else
        local own
        token, att, own = match(run or '', '^((%d+)%-(%S+))')
        if state ~= 'RUNNING' or own ~= nonce then return {'TAKEN'} end
        call('ZADD', lease_key, 'GT', ms + ARGV[i + 4], member) -- again, and there may be a hedge
    end
    local answer = {'OK', token, tonumber(att), tonumber(queue), budgeted, work or nil}
    claimed[#claimed + 1] = answer
    if not work then
        wanted[#wanted + 1] = 'work:' .. id
    end
    if deps then
        for dep in string.gmatch(deps, '%S+') do
            wanted[#wanted + 1] = 'outcome:' .. dep
        end
    end
    answer.last = #wanted
    return answer
end

while ARGV[at] do
    -- next task
    wanted, claimed = {}, {}
    local asked, n = {'budget'}, 1
    for i = at, last, 5 do
        local id = ARGV[i]
        asked[n + 1], asked[n + 2], asked[n + 3], asked[n + 4] = 'sub:' .. id, 'deps:' .. id, 'run:' .. id, 'work:' .. id
        n = n + 4
    end
    local old = call('HMGET', task_key, unpack(asked))
    budgeted, n = old[1] and 1 or 0, 1
    for i = at, last, 5 do
        answers[#answers + 1] = claim(i, old[n + 1], old[n + 2], old[n + 3], old[n + 4])
        n = n + 4
    end
    local data = #wanted > 0 and hmget(data_key, '', wanted)
    n = 1
    for _, answer in ipairs(claimed) do
        for i = n, answer.last do
            answer[#answer + 1] = data[i] or ''
        end
        n = answer.last + 1
        answer.last = nil
    end
    at = last + 1
end
told()
return answers

-- Attempts that run. The line run:<id> is "token worker arm"; behind them those of its hedge, if there is one;
-- behind these "$" when something is reserved for the subtask (field hold:<id>). Returns them, and whether it is.
local function read_run(run)
    local words, attempts = {}, {}
    for word in string.gmatch(run, '%S+') do
        words[#words + 1] = word
    end
    for i = 1, #words - 2, 3 do
        attempts[#attempts + 1] = {token = words[i], number = match(words[i], '^%d+') or '0',
            words = words[i] .. ' ' .. words[i + 1] .. ' ' .. words[i + 2]}
    end
    return attempts, #words % 3 == 1
end

local function write_run(attempts, held)
    local words = {}
    for i, attempt in ipairs(attempts) do
        words[i] = attempt.words
    end
    if held then
        words[#words + 1] = '$'
    end
    return table.concat(words, ' ')
end

-- The place of the token's attempt among them.
local function find_attempt(attempts, token)
    for i, attempt in ipairs(attempts) do
        if attempt.token == token then return i end
    end
end

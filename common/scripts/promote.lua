#!lua
-- A delayed subtask that is due becomes READY. T, id. OK, STALE, GONE.
local id = ARGV[2]
local line = call('HGET', sub_key, id)
if not line then return 'GONE' end
local s = parse(line)
if not s[STATE] then return damaged(id) end
if s[STATE] ~= 'DELAYED' then return 'STALE' end
local member = T .. '/' .. id
local due = call('ZSCORE', delay_key, member)
if due and tonumber(due) > floor(clock() / 1000) then return 'STALE' end
call('ZREM', delay_key, member)
ready_again(id, s)
return 'OK'

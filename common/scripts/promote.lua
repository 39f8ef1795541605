#!lua
-- A delayed subtask that is due becomes READY. T, id. OK, STALE, GONE.
-- include lib
-- include lib_line
-- include lib_ready
local id = ARGV[2]
local line = call('HGET', task_key, 'sub:' .. id)
if not line then return 'GONE' end
local s = parse(line)
if not s[STATE] then return damaged(id) end
if s[STATE] ~= 'DELAYED' then return 'STALE' end
local member, us = T .. '/' .. id, clock()
local due = call('ZSCORE', delay_key, member)
if due and tonumber(due) > tonumber(sub(us, 1, -4)) then return 'STALE' end
call('ZREM', delay_key, member)
ready_again(id, s, us)
told()
return 'OK'

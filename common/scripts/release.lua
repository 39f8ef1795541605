#!lua
-- HELD becomes READY. T, id. OK, DUP, STALE, GONE.
-- include lib
-- include lib_line
-- include lib_ready
local id = ARGV[2]
local line = call('HGET', task_key, 'sub:' .. id)
if not line then return 'GONE' end
local s = parse(line)
if not s[STATE] then return damaged(id) end
if s[STATE] == 'READY' then return 'DUP' end
if s[STATE] ~= 'HELD' then return 'STALE' end
call('ZREM', held_key, T .. '/' .. id)
ready_again(id, s, clock())
told()
return 'OK'

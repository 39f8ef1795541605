#!lua
-- READY becomes HELD, until a person releases it. T, id. OK, DUP, STALE, GONE.
-- include lib
-- include lib_line
local id = ARGV[2]
local line = call('HGET', task_key, 'sub:' .. id)
if not line then return 'GONE' end
local s = parse(line)
if not s[STATE] then return damaged(id) end
if s[STATE] == 'HELD' then return 'DUP' end
if s[STATE] ~= 'READY' then return 'STALE' end
local member, ms = T .. '/' .. id, sub(clock(), 1, -4)
s[STATE] = 'HELD'
call('HSET', task_key, 'sub:' .. id, concat(s, ' '))
call('ZREM', ready_key, member)
call('ZADD', held_key, ms, member)
log(ms, 'note', id, s[ATT], '- - -', '-', 'held')
told()
return 'OK'

#!lua
-- READY becomes HELD, until a person releases it. T, id. OK, DUP, STALE, GONE.
local id = ARGV[2]
local line = call('HGET', sub_key, id)
if not line then return 'GONE' end
local s = parse(line)
if not s[STATE] then return damaged(id) end
if s[STATE] == 'HELD' then return 'DUP' end
if s[STATE] ~= 'READY' then return 'STALE' end
local member = T .. '/' .. id
s[STATE] = 'HELD'
call('HSET', sub_key, id, concat(s, ' '))
call('ZREM', ready_key, member)
call('ZADD', held_key, floor(clock() / 1000), member)
log('note', id, s, '-', 'held')
return 'OK'

#!lua
-- T, id, token, lease in ms. OK, STALE, CANCEL, GONE.
local id = ARGV[2]
local line = call('HGET', sub_key, id)
if not line then return 'GONE' end
local s = parse(line)
if not s[STATE] then return damaged(id) end
if s[STATE] == 'CANCELLED' then return 'CANCEL' end
if s[STATE] ~= 'RUNNING' or s[TOK] ~= ARGV[3] then return 'STALE' end
call('ZADD', lease_key, floor(clock() / 1000) + ARGV[4], T .. '/' .. id)
return 'OK'

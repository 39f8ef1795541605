#!lua
-- T, id, token, lease in ms. OK, STALE, CANCEL, GONE.
-- include lib
local id = ARGV[2]
local old = call('HMGET', task_key, 'sub:' .. id, 'run:' .. id)
if not old[1] then return 'GONE' end
local state = match(old[1], '^%u+')
if state == 'CANCELLED' then return 'CANCEL' end
if state ~= 'RUNNING' or match(old[2] or '', '^%S+') ~= ARGV[3] then return 'STALE' end
local t = call('TIME')
local ms = t[1] .. sub('00000' .. t[2], -6, -4)
call('ZADD', lease_key, tostring(ms + ARGV[4]), T .. '/' .. id)
return 'OK'

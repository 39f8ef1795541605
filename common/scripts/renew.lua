#!lua
-- T, id, token, lease in ms. OK, STALE, CANCEL, GONE.
-- include lib
local id = ARGV[2]
local old = call('HMGET', task_key, 'sub:' .. id, 'run:' .. id)
if not old[1] then return 'GONE' end
local state = match(old[1], '^%u+')
if state == 'CANCELLED' then return 'CANCEL' end
if state ~= 'RUNNING' then return 'STALE' end
local t = call('TIME')
local expiry = tostring(t[1] .. sub('00000' .. t[2], -6, -4) + ARGV[4])
local token, hedge = match(old[2] or '', '^(%S+) %S+ %S+(.*)$')
hedge = hedge ~= '' and match(hedge or '', '^ (%S+) %S+ %S+')
if token ~= ARGV[3] and (hedge or nil) ~= ARGV[3] then return 'STALE' end
if hedge then
    call('ZADD', lease_key, 'GT', expiry, T .. '/' .. id) -- the later expiry of the two
else
    call('ZADD', lease_key, expiry, T .. '/' .. id)
end
return 'OK'

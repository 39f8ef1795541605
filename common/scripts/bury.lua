#!lua
-- READY becomes DEAD: no arm is left that it does not avoid. T, id, what it avoided when that was decided, reason or ''.
-- OK, DUP, STALE, GONE.
-- include lib
-- include lib_line
-- include lib_ready
-- include lib_over
-- include lib_dead
local id = ARGV[2]
local old = call('HMGET', task_key, 'sub:' .. id, 'run:' .. id, 'state', 'avoid:' .. id, 'error:' .. id)
if not old[1] then return 'GONE' end
local s = parse(old[1])
if not s[STATE] then return damaged(id) end
if s[STATE] == 'DEAD' then return 'DUP' end
if s[STATE] ~= 'READY' or (old[4] or '') ~= ARGV[3] then return 'STALE' end
local reason = old[5] or ''
if ARGV[4] ~= '' then
    reason = ARGV[4]
    call('HSET', task_key, 'error:' .. id, reason)
end
call('ZREM', ready_key, T .. '/' .. id)
die(id, s, sub(clock(), 1, -4), old[2] or '- - -', reason, old[3] == 'RUNNING')
told()
return 'OK'

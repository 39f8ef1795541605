#!lua flags=allow-oom
-- The outbox was applied up to an entry. KEYS: checkpoint, fence, outbox. term, id. OK, DUP (it stands there or later),
-- STALE (there is a later holder).
local function parse(id)
    local ms, seq = string.match(id, '^(%d+)%-?(%d*)$')
    return tonumber(ms or 0), tonumber(seq or 0) or 0
end
local fence = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
if tonumber(ARGV[1]) < fence then return 'STALE' end
local ms, seq = parse(ARGV[2])
local old_ms, old_seq = parse(redis.call('GET', KEYS[1]) or '')
if ms < old_ms or (ms == old_ms and seq <= old_seq) then return 'DUP' end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('XTRIM', KEYS[3], 'MINID', '~', ARGV[2])
return 'OK'

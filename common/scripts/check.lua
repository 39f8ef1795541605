#!lua flags=no-writes
-- What fsck compares, at one moment. T, then ids that indexes name. {task, sub, in, succ, res,
-- {id, ready, lease, delay, held, dead ...}, score in tasks, score in fin}.
local sub = call('HGETALL', sub_key)
local ids, seen = {}, {}
for i = 1, #sub, 2 do
    if not string.find(sub[i], ':', 1, true) then
        ids[#ids + 1] = sub[i]
        seen[sub[i]] = true
    end
end
for i = 2, #ARGV do
    if not seen[ARGV[i]] then
        ids[#ids + 1] = ARGV[i]
    end
end
local scores = {}
for _, id in ipairs(ids) do
    scores[#scores + 1] = id
    for _, key in ipairs({ready_key, lease_key, delay_key, held_key, dead_key}) do
        scores[#scores + 1] = call('ZSCORE', key, T .. '/' .. id)
    end
end
return {call('HGETALL', task_key), sub, call('HGETALL', in_key), call('HGETALL', succ_key),
    call('HGETALL', res_key), scores, call('ZSCORE', tasks_key, T), call('ZSCORE', fin_key, T)}

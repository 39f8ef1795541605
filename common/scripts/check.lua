#!lua flags=no-writes
-- What fsck compares, at one moment. T, then ids that indexes name. {task, data,
-- {id, scores in ready, lease, delay, held, dead; ...}, score in tasks, score in fin, log}.
-- include lib
local task = call('HGETALL', task_key)
local ids, seen, scores = {}, {}, {}
for i = 1, #task, 2 do
    local id = match(task[i], '^sub:(.+)$')
    if id then
        ids[#ids + 1] = id
        seen[id] = true
    end
end
for i = 2, #ARGV do
    if not seen[ARGV[i]] then
        ids[#ids + 1] = ARGV[i]
    end
end
for _, id in ipairs(ids) do
    scores[#scores + 1] = id
    for _, key in ipairs({ready_key, lease_key, delay_key, held_key, dead_key}) do
        scores[#scores + 1] = call('ZSCORE', key, T .. '/' .. id)
    end
end
return {task, call('HGETALL', data_key), scores, call('ZSCORE', tasks_key, T), call('ZSCORE', fin_key, T),
    call('LRANGE', log_key, 0, -1)}

#!lua flags=no-writes
-- One consistent picture of a task. T, '1' with work. {task, data}, as HGETALL gives them.
-- include lib
-- include lib_hmget
local task = call('HGETALL', task_key)
if #task == 0 then return {} end
if ARGV[2] == '1' then
    return {task, call('HGETALL', data_key)}
end
local fields, data = {'title', 'info'}, {}
for i = 1, #task, 2 do
    local id = match(task[i], '^sub:(.+)$')
    if id then
        if not string.find(task[i + 1], ' [\128-\255]') then
            fields[#fields + 1] = 'meta:' .. id -- of a release before this one
        end
        fields[#fields + 1] = 'outcome:' .. id
        fields[#fields + 1] = 'timing:' .. id
    end
end
local values = hmget(data_key, '', fields)
for i, field in ipairs(fields) do
    data[2 * i - 1], data[2 * i] = field, values[i]
end
return {task, data}

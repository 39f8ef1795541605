#!lua flags=no-writes
-- One consistent picture of a task. T, '1' with work. {task, sub, in, res}, as HGETALL gives them.
local task = call('HGETALL', task_key)
if #task == 0 then return {} end
local sub = call('HGETALL', sub_key)
local inputs = {}
if ARGV[2] == '1' then
    inputs = call('HGETALL', in_key)
else
    local fields = {':title', ':info'}
    for i = 1, #sub, 2 do
        if not string.find(sub[i], ':', 1, true) then
            fields[#fields + 1] = sub[i] .. ':m'
        end
    end
    local values = hmget(in_key, fields)
    for i, field in ipairs(fields) do
        inputs[2 * i - 1], inputs[2 * i] = field, values[i]
    end
end
return {task, sub, inputs, call('HGETALL', res_key)}

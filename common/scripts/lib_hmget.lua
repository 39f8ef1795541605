-- HMGET of prefix .. id for any number of ids.
local function hmget(key, prefix, ids)
    local values, fields, n = {}, {}, #ids
    for from = 1, n, 1000 do
        local to = math.min(from + 999, n)
        for i = from, to do
            fields[i - from + 1] = prefix .. ids[i]
        end
        local part = call('HMGET', key, unpack(fields, 1, to - from + 1))
        for i = 1, #part do
            values[from + i - 1] = part[i]
        end
    end
    return values
end

-- Reads nodes out of ARGV from `first` to `last`, five arguments each: id, "max priority expands",
-- dependencies, work, meta. Returns them, and how many expand.
local function read_nodes(first, last, ord)
    local nodes, expanding = {}, 0
    for at = first, last, 5 do
        local deps, meta = {}, ARGV[at + 4]
        local max, prio, exp = match(ARGV[at + 1], '^(%d+) (%-?%d+) ([01])$')
        for dep in string.gmatch(ARGV[at + 2], '%S+') do
            deps[#deps + 1] = dep
        end
        if exp == '1' then
            expanding = expanding + 1
        end
        nodes[#nodes + 1] = {id = ARGV[at], s = {'BLOCKED', '0', max, #deps, '0', '0', '-', max, prio, exp,
            meta ~= '' and ord .. ' ' .. meta or ord},
            deps = deps, all = ARGV[at + 2], work = ARGV[at + 3]}
        ord = ord + 1
    end
    return nodes, expanding
end

-- Stores nodes and the edges to them, all BLOCKED, but for those of which s[INDEG] is 0: these are
-- returned, for make_ready(). is_done[dep]: no edge from there. data: more to store with the first.
local function store_nodes(nodes, is_done, data)
    local ready, edges, order = {}, {}, {}
    local lines, n, m = {task_key}, 1, #data
    for i, node in ipairs(nodes) do
        local id, s = node.id, node.s
        if s[INDEG] == 0 then
            ready[#ready + 1] = node
        else
            lines[n + 1], lines[n + 2] = 'sub:' .. id, concat(s, ' ')
            n = n + 2
        end
        if #node.deps > 0 then
            lines[n + 1], lines[n + 2] = 'deps:' .. id, node.all
            n = n + 2
        end
        data[m + 1], data[m + 2] = 'work:' .. id, node.work
        m = m + 2
        for _, dep in ipairs(node.deps) do
            if not is_done[dep] then
                if not edges[dep] then
                    edges[dep] = {}
                    order[#order + 1] = dep
                end
                table.insert(edges[dep], id)
            end
        end
        if n > 1000 or m > 1000 or i == #nodes then
            if n > 1 then
                call('HSET', unpack(lines, 1, n))
            end
            call('HSET', unpack(data, 1, m))
            n, m = 1, 1
        end
    end
    for _, dep in ipairs(order) do
        local old = call('HGET', task_key, 'succ:' .. dep)
        local new = concat(edges[dep], ' ')
        call('HSET', task_key, 'succ:' .. dep, old and old .. ' ' .. new or new)
    end
    return ready
end

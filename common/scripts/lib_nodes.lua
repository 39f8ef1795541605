-- Reads nodes out of ARGV from `first`, five arguments each: id, "max priority expands",
-- dependencies, work, meta. Returns them, how many expand, and by id.
local function read_nodes(first, ord)
    local nodes, by_id, expanding = {}, {}, 0
    for at = first, #ARGV, 5 do
        local id, deps = ARGV[at], {}
        local max, prio, exp = match(ARGV[at + 1], '^(%d+) (%-?%d+) ([01])$')
        for dep in string.gmatch(ARGV[at + 2], '%S+') do
            deps[#deps + 1] = dep
        end
        if exp == '1' then
            expanding = expanding + 1
        end
        local s = {'BLOCKED', '0', max, #deps, '0', '0', '-', '-', '-', '-', max, prio, #deps, exp, ord}
        nodes[#nodes + 1] = {id = id, s = s, deps = deps, all = ARGV[at + 2], work = ARGV[at + 3], meta = ARGV[at + 4]}
        by_id[id] = nodes[#nodes]
        ord = ord + 1
    end
    return nodes, expanding, by_id
end

-- Stores nodes and the edges to them, all BLOCKED, but for those of which s[INDEG] is 0: these are
-- returned, for make_ready(). is_done[dep]: no edge from there.
local function store_nodes(nodes, is_done)
    local ready, edges, order = {}, {}, {}
    local lines, inputs, n, m = {sub_key}, {in_key}, 1, 1
    for i, node in ipairs(nodes) do
        local id, s = node.id, node.s
        if s[INDEG] == 0 then
            ready[#ready + 1] = node
        else
            lines[n + 1], lines[n + 2] = id, concat(s, ' ')
            n = n + 2
        end
        if #node.deps > 0 then
            lines[n + 1], lines[n + 2] = id .. ':d', node.all
            n = n + 2
        end
        inputs[m + 1], inputs[m + 2], inputs[m + 3], inputs[m + 4] = id, node.work, id .. ':m', node.meta
        m = m + 4
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
            call('HSET', unpack(inputs, 1, m))
            n, m = 1, 1
        end
    end
    for _, dep in ipairs(order) do
        local old = call('HGET', succ_key, dep)
        local new = concat(edges[dep], ' ')
        call('HSET', succ_key, dep, old and old .. ' ' .. new or new)
    end
    return ready
end

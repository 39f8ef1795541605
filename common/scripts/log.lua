#!lua flags=no-writes
-- The log from entry number ARGV[2] on, at most ARGV[3] entries. {number of the first, entries...}
-- include lib
local dropped = tonumber(call('HGET', task_key, 'dropped') or 0) or 0
local from = math.max(tonumber(ARGV[2]), dropped)
local entries = call('LRANGE', log_key, from - dropped, from - dropped + ARGV[3] - 1)
table.insert(entries, 1, from)
return entries

#!lua
-- A line for people in the log of a task. T, id or '-', text. OK, GONE.
if call('EXISTS', task_key) == 0 then return 'GONE' end
log('note', ARGV[2], NOBODY, '-', ARGV[3])
return 'OK'
